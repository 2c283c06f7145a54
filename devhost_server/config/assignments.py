"""What environment variables and ``--set`` say, as layers: one key and its value each.

Where a key is text, the value is taken as it is, so that no password means anything to YAML. Everywhere else the value
is YAML, and one of which YAML would drop a part is refused: nobody writes a comment there on purpose.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from typing import Final

from devhost_server.config.problems import Origin, Problem
from devhost_server.config.reader import MAX_DEPTH, ReadError, has_comment, read, type_scalar
from devhost_server.config.schema import is_key, text_at
from devhost_server.config.tree import Node, Path, dotted, mapping

PREFIX: Final = "DEVHOST__"
MAX_CONNS: Final = "DEVHOST_MAX_CONNS"

# One underscore where nesting needs two: without a word the setting would simply not count.
_MISSPELLED: Final = re.compile(r"DEVHOST_[A-Z0-9][A-Z0-9_]*__[A-Z0-9_]+")


def environment_layers(environ: Mapping[str, str], problems: list[Problem]) -> list[Node]:
    """Return a layer for each variable that sets a key, in the order in which they are laid over one another."""
    layers = []
    # The shorter name first, so that a variable for one key wins over one for the section around it.
    for name in sorted(environ, key=lambda name: (name.count("__"), name)):
        if name.startswith(PREFIX):
            layers += _single_value(_key_of(name), environ[name], Origin(name), problems)
        elif _MISSPELLED.fullmatch(name):
            right = PREFIX + name.removeprefix("DEVHOST_")
            hint = f" (did you mean {right}?)" if is_key(_key_of(right)) else ""
            problems.append(Problem.of(name, f"not a variable this program reads; settings begin with {PREFIX}{hint}"))
    return layers


def set_layers(sets: Iterable[str], problems: list[Problem]) -> list[Node]:
    """Return a layer for each ``--set``."""
    layers = []
    for assignment in sets:
        key, equals, value = assignment.partition("=")
        if not equals:
            problems.append(Problem.of("--set", f"'{assignment}' is not understood; write key.path=value"))
            continue
        layers += _single_value(tuple(key.strip().split(".")), value, Origin("--set"), problems)
    return layers


def max_conns_layer(environ: Mapping[str, str], below: Node, problems: list[Problem]) -> list[Node]:
    """Set ``pool.max_connections`` of every upstream: as what they inherit, and where a file says otherwise."""
    text = environ.get(MAX_CONNS, "").strip()
    if not text:
        return []
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= 100_000):
        problems.append(Problem.of(MAX_CONNS, f"'{text[:80]}' is not a number of connections; 1 to 100000 is allowed"))
        return []
    origin = Origin(MAX_CONNS)
    pool = mapping({"pool": mapping({"max_connections": Node(int(text), origin, origin)}, origin)}, origin)
    own = {
        section: mapping(dict.fromkeys(names, pool), origin)
        for section in ("upstreams", "routes")
        if (names := list(_with_own_maximum(below, section)))
    }
    return [mapping({"defaults": pool, **own}, origin)]


def _with_own_maximum(tree: Node, section: str) -> Iterator[str]:
    entries = tree.get(section)
    for name, entry in entries.children() if entries else ():
        pool = entry.get("pool")
        if pool is not None and pool.get("max_connections") is not None:
            yield str(name)


def _key_of(name: str) -> tuple[str, ...]:
    return tuple(name.removeprefix(PREFIX).lower().split("__"))


def _single_value(path: tuple[str, ...], text: str, origin: Origin, problems: list[Problem]) -> list[Node]:
    """Make the layer that gives one key a value; no layer and a problem if it is none."""
    key = dotted(path)
    if not all(path) or len(path) > MAX_DEPTH:
        problems.append(Problem.of(str(origin), f"'{key}' is not a key; name each part, as in server.workers"))
        return []
    try:
        node = _value(path, text, origin)
    except ReadError as error:
        hint = "; put a text with special characters in quotes, inside the shell's own"
        problems.append(Problem.at(origin, key, f"the value is {error.message}{hint}"))
        return []
    return [reduce(lambda inner, part: mapping({part: inner}, origin), reversed(path), node)]


def _value(path: Path, text: str, origin: Origin) -> Node:
    """Read the value of one key: as it is where the key is text, else as YAML. Raises `ReadError`."""
    match text_at(path):
        case "any":
            return _verbatim(text, origin)
        case "notation" if type_scalar(text.strip()) is not None and text.lstrip()[0] not in "'\"":
            return _verbatim(text, origin)
    node = read(text, lambda _line, _column: origin)
    if has_comment(text):
        raise ReadError(origin, "cut by YAML, which takes # and what follows it for a comment")
    if node.value is None and type_scalar(text.strip()) is not None:
        raise ReadError(origin, "nothing to YAML, though it is not empty")
    return node


def _verbatim(text: str, origin: Origin) -> Node:
    # Expansion comes later and would halve each $$. That is for texts that have expressions in them, not for passwords.
    return Node(text if "${" in text else text.replace("$", "$$"), origin, origin)
