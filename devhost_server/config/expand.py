"""``${VAR}`` and ``${file:…}`` in scalar values.

Expansion happens after YAML was parsed and merged, and its result is never scanned again, so a value can neither inject
structure nor a further expansion. The grammar, where `text` may hold further expressions::

    ${VAR}  ${VAR:-text}  ${VAR-text}  ${VAR:?text}  ${file:text}  $$

A ``$`` before anything else is an ordinary character.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FORMS: Final = (
    "${VAR}, ${VAR:-default}, ${VAR-default}, ${VAR:?message}, ${file:/path} and $$ for a plain $ are allowed"
)
MAX_NESTING: Final = 16
MAX_SECRET_BYTES: Final = 1024 * 1024

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR: Final = re.compile(r":-|-|:\?")


class ExpandError(Exception):
    """An expression cannot be expanded; the text says why and what is allowed."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """The result. `held` tells whether any expression was in the scalar, `whole` whether it was one and nothing else.

    `secret` tells whether a file's content is in it, `foreign` whether that or a variable's is: then the text is not
    the configuration's own word.
    """

    text: str
    held: bool
    whole: bool
    secret: bool
    foreign: bool


def expand(template: str, variables: Mapping[str, str], folder: Path) -> Expanded:
    """Expand one scalar. Relative files are looked for in `folder`. Raises `ExpandError`."""
    return _Expansion(template, variables, folder).run()


class _Expansion:
    """One pass over one template, left to right."""

    def __init__(self, template: str, variables: Mapping[str, str], folder: Path) -> None:
        self.template = template
        self.variables = variables
        self.folder = folder
        self.at = 0
        self.held = False
        self.secret = False
        self.foreign = False
        self.defaulted: list[str] = []  # variables in whose place a default was taken

    def run(self) -> Expanded:
        first = self._expression(1) if self.template.startswith("${") else ""
        whole = self.held and self.at == len(self.template)
        text = first + self._text(0, "")
        return Expanded(text, held=self.held, whole=whole, secret=self.secret, foreign=self.foreign)

    def _text(self, depth: int, end: str, *, skip: bool = False) -> str:
        """Read up to the character `end` (or to the end of the template) and expand what is in between."""
        parts: list[str] = []
        while self.at < len(self.template):
            if end and self.template[self.at] == end:
                return "".join(parts)
            if self.template.startswith("$$", self.at):
                parts.append("$")
                self.at += 2
            elif self.template.startswith("${", self.at):
                parts.append(self._expression(depth + 1, skip=skip))
            else:
                parts.append(self.template[self.at])
                self.at += 1
        if end:
            raise ExpandError(f"a ${{ has no }} of its own; {FORMS}")
        return "".join(parts)

    def _expression(self, depth: int, *, skip: bool = False) -> str:
        """Read one ``${…}``; with `skip`, for its extent only: a default that is not used need not be expandable."""
        if depth > MAX_NESTING:
            raise ExpandError(f"expressions nest deeper than {MAX_NESTING} levels")
        self.held = True
        self.at += 2
        if self.template.startswith("file:", self.at):
            self.at += len("file:")
            return self._file(depth, skip=skip)
        name = _NAME.match(self.template, self.at)
        if name is None:
            raise ExpandError(f"a ${{ has no name after it; {FORMS}")
        self.at = name.end()
        return self._variable(name[0], depth, skip=skip)

    def _variable(self, name: str, depth: int, *, skip: bool) -> str:
        value = self.variables.get(name)
        operator = _OPERATOR.match(self.template, self.at)
        if operator is None:
            self._close()
            if value is None and not skip:
                raise ExpandError(f"the variable {name} is not set; set it, or give a default as in ${{{name}:-…}}")
            self.foreign = self.foreign or not skip
            return value or ""
        self.at = operator.end()
        used = value if value is not None and (value or operator[0] == "-") else None
        word = self._text(depth, "}", skip=skip or used is not None)
        self._close()
        if used is None and operator[0] == ":?" and not skip:
            raise ExpandError(f"the variable {name} is not set or empty{f': {word}' if word else ''}")
        if used is None:
            self.defaulted.append(name)
            return word
        self.foreign = self.foreign or not skip
        return used

    def _file(self, depth: int, *, skip: bool) -> str:
        self.defaulted.clear()
        name = self._text(depth, "}", skip=skip)
        self._close()
        if skip:
            return ""
        self.secret = self.foreign = True
        try:
            return read_secret(self.folder, name)
        except ExpandError as error:
            others = " or ".join(self.defaulted)
            raise ExpandError(f"{error}; set {others} to name another file" if others else str(error)) from None

    def _close(self) -> None:
        if not self.template.startswith("}", self.at):
            raise ExpandError(f"what follows the name in a ${{…}} is not understood; {FORMS}")
        self.at += 1


def read_secret(folder: Path, name: str) -> str:
    """Read a file for ``${file:…}``, less one newline at its end. Raises `ExpandError`."""
    path = folder / name
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
        text = content.decode()
    except (OSError, ValueError) as error:
        raise ExpandError(f"the file {path} cannot be read: {_reason(error)}") from None
    if len(content) > MAX_SECRET_BYTES:
        raise ExpandError(f"the file {path} is longer than {MAX_SECRET_BYTES} bytes, which no value needs")
    return text.removesuffix("\n").removesuffix("\r")


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
