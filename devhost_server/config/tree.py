"""Configuration before it is validated: plain values that remember where they came from, and how layers merge."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from devhost_server.config.problems import Origin

Path: TypeAlias = tuple[str | int, ...]
Scalar: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Node:
    """One value. `at` is where it stands, `key_at` where its key does.

    `text` is what an expanded scalar said before it was read as a number or a truth value: a field that wants text gets
    that text, so a token of digits stays a token.
    """

    value: "Scalar | dict[str, Node] | tuple[Node, ...] | Broken"
    at: Origin
    key_at: Origin
    text: str | None = None

    def children(self) -> "Iterator[tuple[str | int, Node]]":
        """Go through keys or indices and their nodes; nothing for a scalar."""
        if isinstance(self.value, dict):
            yield from self.value.items()
        elif isinstance(self.value, tuple):
            yield from enumerate(self.value)

    def get(self, key: str | int) -> "Node | None":
        """Return the child of that key or index."""
        if isinstance(self.value, dict) and isinstance(key, str):
            return self.value.get(key)
        if isinstance(self.value, tuple) and isinstance(key, int) and key < len(self.value):
            return self.value[key]
        return None


def mapping(entries: dict[str, Node], origin: Origin) -> Node:
    """Return a mapping that stands at one place with all that is in it."""
    return Node(entries, origin, origin)


class Broken:
    """Stands for a value that could not be expanded; what a validator says about it is no news."""


def find(node: Node, path: Path) -> tuple[Node, Path]:
    """Follow `path` as far as it exists; give the node there and the part of the path that led to it.

    The first item of what is no list is the thing itself: that is how a list of one may be written.
    """
    found: Path = ()
    for key in path:
        child = node.get(key)
        if child is not None:
            node, found = child, (*found, key)
        elif key != 0 or isinstance(node.value, tuple):
            break
    return node, found


def dotted(path: Path) -> str:
    """Write a path as people do: ``upstreams.api.targets.0``."""
    return ".".join(map(str, path))


def plain(node: Node) -> Any:
    """Return the value without its origins: dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, tuple):
        return [plain(child) for child in node.value]
    return node.value


def leaves(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Go through every scalar, and every empty mapping or list, with its path."""
    empty = True
    for key, child in node.children():
        empty = False
        yield from leaves(child, (*path, key))
    if empty:
        yield path, node


def with_value(node: Node, path: Path, value: "Node | None") -> Node:
    """Return a copy of the tree in which the node at `path` (which exists) is replaced or removed."""
    if not path:
        return node if value is None else value
    key, rest = path[0], path[1:]
    child = node.get(key)
    if child is None:
        return node
    changed = value if not rest else with_value(child, rest, value)
    children: dict[str, Node] | tuple[Node, ...]
    if isinstance(node.value, dict):
        children = {k: v for k, v in ((k, changed if k == key else v) for k, v in node.value.items()) if v is not None}
    else:
        pairs = ((i, changed if i == key else child) for i, child in node.children())
        children = tuple(v for _, v in pairs if v is not None)
    return Node(children, node.at, node.key_at)


def without(node: Node, paths: Collection[Path]) -> Node:
    """Return a copy of the tree that lacks what stands at these paths."""
    gone = {path[0] for path in paths if len(path) == 1}
    inside: dict[str | int, list[Path]] = {}
    for path in paths:
        inside.setdefault(path[0], []).append(path[1:])
    kept = {
        key: without(child, inside[key]) if key in inside else child
        for key, child in node.children()
        if key not in gone
    }
    children = tuple(kept.values()) if isinstance(node.value, tuple) else {str(key): v for key, v in kept.items()}
    return Node(children, node.at, node.key_at) if kept or gone else node


def merge(lower: Node, upper: Node, path: Path = ()) -> Node:
    """Lay `upper` over `lower`: mappings merge key by key, everything else (``null`` too) replaces what it covers.

    A merged mapping stands where the lowest layer has it: a variable that adds one key to it is not its place.
    """
    if not isinstance(upper.value, dict):
        return upper
    below = _long_form(lower, path)
    if not isinstance(below.value, dict):
        return upper
    merged = dict(below.value)
    for key, child in upper.value.items():
        merged[key] = merge(merged[key], child, (*path, key)) if key in merged else child
    return Node(merged, below.at, below.key_at)


def _long_form(node: Node, path: Path) -> Node:
    """Write a shorthand route out, so that a further layer can add to it: ``web: 3000`` is ``web: {to: 3000}``."""
    if len(path) == 2 and path[0] == "routes" and not isinstance(node.value, dict) and node.value is not None:
        return Node({"to": node}, node.at, node.key_at)
    return node
