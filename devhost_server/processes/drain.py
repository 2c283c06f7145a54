"""How a gateway stops: a table of phases, and the arithmetic of telling WebSockets to go. No I/O, no clock.

The master runs the first two phases (`ANNOUNCED` while load balancers notice that `/readyz` fails, then the listeners
close) and the workers the others, against one deadline that stands on the scoreboard.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Phase(Enum):
    """Where a drain stands."""

    SERVING = "serving"
    ANNOUNCED = "announced"  # not ready any more, still accepting
    FINISHING = "finishing"  # listeners closed, exchanges end, WebSockets are told
    CUTTING = "cutting"  # the deadline has passed, or a second signal came
    STOPPED = "stopped"


class Cue(Enum):
    """What moves a drain on."""

    SIGNAL = "signal"
    DELAY_OVER = "delay over"
    NOTHING_LEFT = "nothing left"
    DEADLINE = "deadline"


TRANSITIONS: Final = {
    (Phase.SERVING, Cue.SIGNAL): Phase.ANNOUNCED,
    (Phase.ANNOUNCED, Cue.SIGNAL): Phase.CUTTING,
    (Phase.ANNOUNCED, Cue.DELAY_OVER): Phase.FINISHING,
    (Phase.FINISHING, Cue.SIGNAL): Phase.CUTTING,
    (Phase.FINISHING, Cue.DEADLINE): Phase.CUTTING,
    (Phase.FINISHING, Cue.NOTHING_LEFT): Phase.STOPPED,
    (Phase.CUTTING, Cue.NOTHING_LEFT): Phase.STOPPED,
}


def advance(phase: Phase, cue: Cue) -> Phase:
    """Return the phase after a cue; a cue that means nothing in a phase leaves it as it is."""
    return TRANSITIONS.get((phase, cue), phase)


# Browsers reconnect at once: even a small gateway should not send all of its clients to the next one in the same
# moment, and even a large number must be through when four fifths of the time are over.
_PACE_MIN: Final = 20.0  # WebSockets a second
_SHARE: Final = 0.8


@dataclass(slots=True)
class Spread:
    """Spreads the telling of `count` WebSockets over the `seconds` that a drain may take."""

    count: int
    seconds: float
    told: int = 0

    def due(self, elapsed: float) -> int:
        """Return how many are to be told now, `elapsed` seconds after the beginning, and count them as told."""
        pace = max(_PACE_MIN, self.count / max(self.seconds * _SHARE, 0.1))
        due = max(min(self.count, int(pace * elapsed) + 1) - self.told, 0)
        self.told += due
        return due


def receipt(finished: int, closed: int, cut: int) -> str:
    """Return the last line that a gateway says."""
    return f"drained: finished {finished}, closed {closed} websockets, cut {cut}"
