"""Which of a target's connections may carry requests whose bodies are still coming.

At most half of them, however many clients take their time over uploads: the others are left for what is complete.
Sans I/O; who waits is told by an event.
"""

from typing import Protocol

from devhost_server.upstream.caller import Event


class Uploading(Protocol):
    """Who sends a body that is still coming."""

    place: "Uploads | None"

    def post(self, event: object) -> None:
        """Tell that `place` has been given."""


class Uploads:
    """The places for unfinished uploads at one target, and who waits for one, first come first served."""

    __slots__ = ("_places", "_taken", "_waiting")

    def __init__(self, connections: int) -> None:
        self._places = max(connections // 2, 1)
        self._taken = 0
        self._waiting: dict[Uploading, None] = {}

    def __repr__(self) -> str:
        return f"<Uploads {self._taken} of {self._places} waiting={len(self._waiting)}>"

    def enter(self, x: Uploading) -> bool:
        """Take a place, which the exchange leaves once its body is there; if there is none, wait for `Event.PLACE`."""
        if self._taken < self._places:
            self._taken += 1
            x.place = self
            return True
        self._waiting[x] = None
        return False

    def forget(self, x: Uploading) -> None:
        """Let an exchange wait no longer."""
        self._waiting.pop(x, None)

    def leave(self) -> None:
        """Free a place, for the one that has waited longest."""
        x = next(iter(self._waiting), None)
        if x is None:
            self._taken -= 1
            return
        del self._waiting[x]
        x.place = self
        x.post(Event.PLACE)
