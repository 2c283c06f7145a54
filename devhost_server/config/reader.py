"""YAML text to nodes: a strict, bounded subset, read event by event so that every value keeps its place.

Strict: a key given twice is an error; only ``true``, ``false``, ``null`` and decimal numbers are typed (no ``no``, no
``1:30``, no ``012``); tags and several documents are refused. Bounded: depth, size, and the number of values that
aliases unfold to, so that a few lines can neither exhaust the stack nor the memory.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from devhost_server.config.problems import Origin
from devhost_server.config.tree import Node, Scalar

MAX_DEPTH: Final = 32
MAX_NODES: Final = 100_000

_TOO_DEEP: Final = f"this nests deeper than {MAX_DEPTH} levels, which no configuration needs"
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WORDS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,30})")
_FLOAT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,30})?\.?[0-9]{1,30}(?:[eE][-+]?[0-9]{1,3})?")
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9]")

Placer = Callable[[int, int], Origin]
"""Makes the origin of a line and column, both from 1."""


class ReadError(Exception):
    """The text is not what this reader reads; `at` is where."""

    def __init__(self, at: Origin, message: str) -> None:
        super().__init__(message)
        self.at = at
        self.message = message


def type_scalar(text: str) -> Scalar:
    """Type an unquoted scalar: null, true, false, decimal numbers; everything else is text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and not _LEADING_ZERO.match(text):
        return float(text)
    return text


def read(text: str, place: Placer) -> Node:
    """Read one YAML document; an empty one is ``null``. Raises `ReadError`."""
    try:
        return _Composer(place).compose(text)
    except yaml.YAMLError as error:
        raise _translated(error, place) from None


def has_comment(text: str) -> bool:
    """Return whether reading `text`, which `read` has accepted, drops something as a comment."""
    end = 0
    for token in yaml.scan(text, Loader=_LOADER):
        if "#" in text[end : token.start_mark.index]:  # between tokens there are blanks and comments, nothing else
            return True
        end = token.end_mark.index
    return "#" in text[end:]


def _translated(error: yaml.YAMLError, place: Placer) -> ReadError:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    context = getattr(error, "context", None)
    if context == "while scanning a simple key" and getattr(error, "context_mark", None) is not None:
        mark, context, what = error.context_mark, None, "there is no ': ' after this key"  # type: ignore[attr-defined]
    at = place(mark.line + 1, mark.column + 1) if mark is not None else place(1, 1)
    if "maximum nesting depth" in what:  # libyaml from 0.2.6 on has a bound of its own, and reads ahead of ours
        return ReadError(at, _TOO_DEEP)
    return ReadError(at, f"not valid YAML: {f'{context}, ' if context else ''}{what}{_hint(what)}")


def _hint(what: str) -> str:
    hints = {
        "cannot start any token": "; indent with spaces, and put a value that begins with @, ` or % in quotes",
        "mapping values are not allowed": "; put a value that has ': ' in it in quotes",
        "did not find expected ',' or": "; inside […] and {…}, put values with ${…} or brackets in quotes",
    }
    return next((hint for part, hint in hints.items() if part in what), "")


@dataclass(slots=True)
class _Built:
    """A finished node, how many values it unfolds to and how deep it is: what an alias to it costs."""

    node: Node
    count: int = 1
    height: int = 0


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not come yet."""

    at: Origin
    key_at: Origin
    anchor: str | None
    is_mapping: bool
    key: str | None = None
    child_key_at: Origin | None = None
    entries: dict[str, Node] = field(default_factory=dict)
    merged: list[Node] = field(default_factory=list)
    items: list[Node] = field(default_factory=list)
    count: int = 1
    height: int = 0

    def finish(self) -> _Built:
        if not self.is_mapping:
            return _Built(Node(tuple(self.items), self.at, self.key_at), self.count, self.height + 1)
        for inherited in self.merged:
            for key, child in inherited.children():
                self.entries.setdefault(str(key), child)
        return _Built(Node(self.entries, self.at, self.key_at), self.count, self.height + 1)


class _Composer:
    def __init__(self, place: Placer) -> None:
        self.place = place
        self.stack: list[_Open] = []
        self.anchors: dict[str, _Built] = {}
        self.root: Node | None = None
        self.documents = 0

    def compose(self, text: str) -> Node:
        for event in yaml.parse(text, Loader=_LOADER):
            self._take(event)
        return self.root or Node(None, self.place(1, 1), self.place(1, 1))

    def _take(self, event: Any) -> None:
        match event:
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._open(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                done = self.stack.pop()
                self._finished(done.finish(), done.anchor)
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    raise ReadError(self._origin(event), "a second YAML document begins here; one a file is allowed")

    def _origin(self, event: Any) -> Origin:
        return self.place(event.start_mark.line + 1, event.start_mark.column + 1)

    def _value_origins(self, event: Any) -> tuple[Origin, Origin]:
        """Return the places of a value and of its key, having refused what this reader does not read."""
        at = self._origin(event)
        if getattr(event, "tag", None) is not None:
            raise ReadError(at, f"the tag {event.tag} is not allowed here; put a text that shall stay text in quotes")
        parent = self.stack[-1] if self.stack else None
        return at, (parent.child_key_at if parent else None) or at

    def _scalar(self, event: Any) -> None:
        parent = self.stack[-1] if self.stack else None
        if parent is not None and parent.is_mapping and parent.key is None:
            self._key(parent, event)
            return
        at, key_at = self._value_origins(event)
        value = type_scalar(event.value) if event.implicit[0] else event.value
        self._finished(_Built(Node(value, at, key_at)), event.anchor)

    def _key(self, parent: _Open, event: Any) -> None:
        key, at = event.value, self._origin(event)
        if key in parent.entries:
            first = parent.entries[key].key_at
            raise ReadError(at, f"the key '{key}' is given twice, first in line {first.line}; keep one of them")
        parent.key, parent.child_key_at = key, at

    def _open(self, event: Any) -> None:
        at, key_at = self._value_origins(event)
        if len(self.stack) >= MAX_DEPTH:
            raise ReadError(at, _TOO_DEEP)
        parent = self.stack[-1] if self.stack else None
        if parent is not None and parent.is_mapping and parent.key is None:
            raise ReadError(at, "a key is a list or a mapping; keys are text")
        self.stack.append(_Open(at, key_at, event.anchor, isinstance(event, yaml.MappingStartEvent)))

    def _alias(self, event: Any) -> None:
        at = self._origin(event)
        built = self.anchors.get(event.anchor)
        parent = self.stack[-1] if self.stack else None
        if built is None or (parent is not None and parent.is_mapping and parent.key is None):
            raise ReadError(at, f"the alias *{event.anchor} stands before its anchor, inside it, or as a key")
        node = Node(built.node.value, built.node.at, (parent.child_key_at if parent else None) or at)
        self._finished(_Built(node, built.count, built.height), None)

    def _finished(self, built: _Built, anchor: str | None) -> None:
        if anchor is not None:
            self.anchors[anchor] = built
        if not self.stack:
            self.root = built.node
            return
        parent = self.stack[-1]
        parent.count += built.count
        parent.height = max(parent.height, built.height)
        if parent.count > MAX_NODES or len(self.stack) + built.height > MAX_DEPTH:
            limit = f"{MAX_NODES} values" if parent.count > MAX_NODES else f"{MAX_DEPTH} levels"
            raise ReadError(parent.at, f"this unfolds to more than {limit}, which no configuration needs")
        if not parent.is_mapping:
            parent.items.append(built.node)
        elif parent.key == "<<":
            parent.merged.extend(_mappings_to_merge(built.node))
        elif parent.key is not None:
            parent.entries[parent.key] = built.node
        parent.key = parent.child_key_at = None


def _mappings_to_merge(node: Node) -> list[Node]:
    nodes = list(node.value) if isinstance(node.value, tuple) else [node]
    for each in nodes:
        if not isinstance(each.value, dict):
            raise ReadError(node.at, "what << merges in must be a mapping, or a list of mappings")
    return nodes
