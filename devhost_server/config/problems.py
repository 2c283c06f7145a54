"""Where a value comes from, and what is wrong with it."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Origin:
    """The place of a value: a file with line and column (both from 1), an environment variable or ``--set``.

    `via` is the expression that the value was expanded from, if it was; `secret` says that it came out of a file that
    is not configuration, so it is never shown.
    """

    place: str
    line: int | None = None
    column: int | None = None
    via: str | None = None
    secret: bool = False

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.place, self.line, self.column) if part is not None)


DEFAULT: Final = Origin("default")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: where, which key (empty if none), and a sentence that says what is allowed."""

    file: str
    line: int | None
    column: int | None
    key: str
    message: str

    @classmethod
    def at(cls, origin: Origin, key: str, message: str) -> "Problem":
        """Place a problem where `origin` is."""
        return cls(origin.place, origin.line, origin.column, key, message)

    @classmethod
    def of(cls, place: str, message: str) -> "Problem":
        """Return a problem of a whole file, variable or option."""
        return cls(place, None, None, "", message)

    def __str__(self) -> str:
        where = str(Origin(self.file, self.line, self.column))
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class ConfigError(Exception):
    """The configuration cannot be used; `problems` has everything that is wrong with it, in reading order."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
