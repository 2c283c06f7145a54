"""State machines as tables: what may follow what stands in one place, is drawn from there, and is walked by tests.

A connection keeps its state as a small integer and moves by `self._state = ROW[self._state]`, which costs one lookup in
a tuple. A state that must not meet a cue becomes `IMPOSSIBLE`, from where every further move raises `IndexError`.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import Final, TypeVar

S = TypeVar("S", bound=IntEnum)
C = TypeVar("C", bound=Enum)


IMPOSSIBLE: Final = 99
"""What becomes of a state that must not meet a cue: no row is as long."""


def row(transitions: Mapping[tuple[S, C], S], cue: C) -> tuple[int, ...]:
    """Return where each state goes on a cue, by the numbers of the states."""
    states = type(next(iter(transitions))[0])
    return tuple(int(transitions.get((state, cue), IMPOSSIBLE)) for state in states)


def diagram(transitions: Mapping[tuple[S, C], S], first: S) -> str:
    """Return the table as a Mermaid state diagram; what leads to a last state from everywhere is said once."""
    states = {old for old, _ in transitions} | set(transitions.values())
    lines = ["stateDiagram-v2", f"    [*] --> {_name(first)}"]
    for cue in dict.fromkeys(each for _, each in transitions):
        ways = {old: new for (old, each), new in transitions.items() if each is cue}
        if len(ways) == len(states) and len(set(ways.values())) == 1:
            (end,) = set(ways.values())
            lines.append(f"    {_name(end)} --> [*]")
            lines.append(f"    note right of {_name(end)}: from every state: {cue.value}")
            continue
        lines += [f"    {_name(old)} --> {_name(new)}: {cue.value}" for old, new in ways.items()]
    return "\n".join(lines)


def _name(state: IntEnum) -> str:
    return state.name.lower()
