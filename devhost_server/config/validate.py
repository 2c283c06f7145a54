"""From a merged tree to a valid `Document`, or to every sentence about why it is none."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path as FilePath
from typing import Any, Final

from pydantic import ValidationError

from devhost_server.config.expand import Expanded, ExpandError, expand
from devhost_server.config.models import Document
from devhost_server.config.problems import Origin, Problem
from devhost_server.config.reader import type_scalar
from devhost_server.config.schema import known_paths, model_at, text_at
from devhost_server.config.tree import Broken, Node, Path, dotted, find, leaves, plain, with_value
from devhost_server.options import KeyedError, Options
from devhost_server.secrecy import MASK, names_secret
from devhost_server.units import quote

_NAMED: Final = frozenset({"routes", "upstreams"})
_QUOTED: Final = re.compile("'[^']*'")


def is_secret(path: Path, origin: Origin) -> bool:
    """Tell whether a value must never be shown: it came out of a file, or its key says so."""
    return origin.secret or names_secret(path)


def suggestion(word: str, allowed: Iterable[str]) -> str:
    """Give `` (did you mean …?)`` for a word that is close to an allowed one, else nothing."""
    close = get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


# --- expansion -------------------------------------------------------------------------------------------------------


def expanded(
    node: Node, variables: Mapping[str, str], folders: Mapping[str, FilePath], cwd: FilePath, problems: list[Problem]
) -> Node:
    """Give the tree with every ``${…}`` replaced; what cannot be replaced becomes `Broken`, and a problem."""

    def walk(each: Node, path: Path) -> Node:
        if isinstance(each.value, dict):
            return Node({k: walk(v, (*path, k)) for k, v in each.value.items()}, each.at, each.key_at)
        if isinstance(each.value, tuple):
            items = tuple(walk(v, (*path, i)) for i, v in enumerate(each.value))
            return Node(items, each.at, each.key_at)
        if not isinstance(each.value, str) or "$" not in each.value:
            return each
        try:
            result = expand(each.value, variables, folders.get(each.at.place, cwd))
        except ExpandError as error:
            problems.append(Problem.at(each.at, dotted(path), str(error)))
            return Node(Broken(), each.at, each.key_at)
        return _expanded_scalar(each, each.value, result, is_text=text_at(path) == "any")

    return walk(node, ())


def _expanded_scalar(node: Node, template: str, result: Expanded, *, is_text: bool) -> Node:
    via = template if result.held else None
    at = Origin(node.at.place, node.at.line, node.at.column, via=via, secret=result.secret)
    value = type_scalar(result.text) if result.held and result.text else result.text
    # An empty text stays text: a variable that happens to be empty must not switch off what it was meant to set. Nor
    # may text that was put together, and happens to come to `null` or `~`: only a lone expression can mean it, and
    # where text is wanted only the file itself, as in ${VAR:-null}.
    is_null = value is None and result.whole and not (is_text and result.foreign)
    if (is_text or value is None) and not is_null:
        value = result.text
    return Node(value, at, node.key_at, text=None if isinstance(value, str) else result.text)


# --- what the contract names and this version does not build ---------------------------------------------------------


@dataclass(frozen=True)
class Unbuilt:
    """A key that means something in a later version: where it may stand, the value that asks for nothing, and words."""

    path: tuple[str, ...]
    harmless: Any
    what: str


_UPSTREAM_FEATURES: Final = {
    "health_check": "active health checks are",
    "outlier": "outlier ejection is",
    "circuit_breaker": "circuit breaking is",
    "hold": "holding requests while an upstream is down is",
    "hash_on": "hash balancing is",
}
UNBUILT: Final = (
    *(Unbuilt(("upstreams", "*", key), None, what) for key, what in _UPSTREAM_FEATURES.items()),
    *(Unbuilt(("defaults", key), None, what) for key, what in _UPSTREAM_FEATURES.items()),
    Unbuilt(("routes", "*", "policies"), [], "policies are"),
    Unbuilt(("server", "watch"), False, "watching the configuration files is"),
    Unbuilt(("server", "state_dir"), None, "dynamic routes are"),
)


def without_unbuilt(tree: Node, problems: list[Problem]) -> Node:
    """Take keys of later versions out of the tree; one that asks for something is a problem, never ignored."""
    for feature in UNBUILT:
        for path, node in list(_matching(tree, feature.path)):
            value = plain(node)
            if value is not None and value != feature.harmless:
                message = f"{feature.what} not built in this version, so it would have no effect: remove the key"
                problems.append(Problem.at(node.key_at, dotted(path), message))
            tree = with_value(tree, path, None)
    return tree


def _matching(node: Node, pattern: tuple[str, ...], path: Path = ()) -> Iterable[tuple[Path, Node]]:
    if not pattern:
        yield path, node
        return
    for key, child in node.children():
        if pattern[0] in ("*", key):
            yield from _matching(child, pattern[1:], (*path, key))


# --- validation ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Validated:
    """A valid document; `left_out` names the sections, routes and upstreams that were wrong and are not in it."""

    document: Document
    tree: Node
    left_out: frozenset[Path]


def validated(tree: Node, problems: list[Problem], *, complete: bool = True) -> Validated:
    """Validate the tree; each thing wrong becomes a problem, and what is right is checked on without it.

    `complete` is False when a layer could not be read: then nobody can say that something is missing.
    """
    try:
        return Validated(Document.model_validate(plain(tree)), tree, frozenset())
    except ValidationError as error:
        tree, errors = _with_texts(tree, error)
    if not errors:
        return Validated(Document.model_validate(plain(tree)), tree, frozenset())
    problems += [problem for each in errors if (problem := _problem(each, tree, complete=complete))]
    left_out = frozenset(_part(each["loc"]) for each in errors)
    sound = tree
    for path in left_out:
        sound = with_value(sound, path, None)
    return Validated(Document.model_validate(plain(sound)), tree, left_out)


def _with_texts(tree: Node, error: ValidationError) -> tuple[Node, list[Any]]:
    """Give fields that want text the text of what expansion had typed, and say what is still wrong then."""
    before = tree
    for each in error.errors(include_url=False):
        node, path = find(tree, each["loc"])
        if each["type"] == "string_type" and node.text is not None:
            tree = with_value(tree, path, Node(node.text, node.at, node.key_at))
    if tree is before:
        return tree, list(error.errors(include_url=False))
    try:
        Document.model_validate(plain(tree))
    except ValidationError as remaining:
        return tree, list(remaining.errors(include_url=False))
    return tree, []


def _part(loc: Path) -> Path:
    return loc[:2] if loc[0] in _NAMED else loc[:1]


def _problem(error: Mapping[str, Any], tree: Node, *, complete: bool) -> Problem | None:
    """Put one of pydantic's errors into a sentence at its place; None if it only follows from another problem."""
    loc: Path = error["loc"]
    node, found = find(tree, loc)
    if isinstance(node.value, Broken):
        return None
    about_absence = error["type"] == "missing" or (error["type"] == "value_error" and isinstance(node.value, dict))
    if about_absence and not complete:
        return None
    about_key = error["type"] == "extra_forbidden" or loc[-1] == "[key]"
    path = (*found, loc[-1]) if error["type"] == "missing" else found
    reason = error.get("ctx", {}).get("error")
    if isinstance(reason, KeyedError):
        node, path = find(tree, (*loc, reason.key))
    message = _sentence(error, loc)
    if is_secret(path, node.at):
        # A sentence may quote a part of the value, or what might have been meant instead.
        message = _QUOTED.sub(MASK, redacted(message, [str(node.value)]))
    return Problem.at(node.key_at if about_key else place_of(node), dotted(path), message)


def place_of(node: Node) -> Origin:
    """Give the place to point at: that of the value, or of the key when the value is a mapping of its own lines."""
    return node.key_at if isinstance(node.value, dict) else node.at


def redacted(message: str, secrets: Iterable[str]) -> str:
    """Take secrets out of a sentence: as quoted there, and where they are long enough to be no accident, anywhere."""
    for secret in secrets:
        message = message.replace(quote(secret), MASK)
        message = message.replace(secret, MASK) if len(secret) >= 4 else message
    return message


def secrets_in(tree: Node) -> list[str]:
    """Give the texts of all secret values, longest first."""
    found = {
        node.text or node.value
        for path, node in leaves(tree)
        if isinstance(node.text or node.value, str) and is_secret(path, node.at)
    }
    return sorted(map(str, found), key=len, reverse=True)


_EXPECTED: Final = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "dict_type": "a mapping of names",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
}
_BOUNDS: Final = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}


def _out_of_bounds(given: Any, context: Mapping[str, Any]) -> str:
    words = next(f"{words} {context[name]:g}" for name, words in _BOUNDS.items() if name in context)
    return f"{quote(given)} is out of bounds: {words} is allowed"


def _not_text(given: Any, _context: Mapping[str, Any]) -> str:
    return f"{quote(given)} is not text" + (": put it in quotes" if isinstance(given, int | float) else "")


def _not_one_of(given: Any, context: Mapping[str, Any]) -> str:
    allowed = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
    return f"{quote(given)} is not allowed; allowed: {', '.join(allowed)}{suggestion(str(given), allowed)}"


_SENTENCES: Final[dict[str, Callable[[Any, Mapping[str, Any]], str]]] = {
    "value_error": lambda _given, context: str(context["error"]),
    "missing": lambda _given, _context: "is required and not given",
    "string_type": _not_text,
    "literal_error": _not_one_of,
    "too_short": lambda _given, _context: "the list is empty; at least one is needed",
    **dict.fromkeys(("greater_than", "greater_than_equal", "less_than", "less_than_equal"), _out_of_bounds),
}


def _sentence(error: Mapping[str, Any], loc: Path) -> str:
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        return _unknown_key(str(loc[-1]), loc[:-1])
    if kind in _EXPECTED:
        return f"{quote(given)} is not {_EXPECTED[kind]}{_keys_of(model_at(loc))}"
    make = _SENTENCES.get(kind)
    return make(given, error.get("ctx", {})) if make else str(error["msg"])


def _keys_of(model: type[Options] | None) -> str:
    return f"; allowed keys: {', '.join(model.model_fields)}" if model is not None else ""


def _unknown_key(key: str, parent: Path) -> str:
    model = model_at(parent)
    allowed = list(model.model_fields) if model is not None else []
    hint = suggestion(key, allowed)
    if not hint:
        elsewhere = [dotted(path) for path in known_paths() if path[-1] == key]
        hint = f" (did you mean {elsewhere[0]}?)" if elsewhere else ""
    return f"unknown key; allowed: {', '.join(allowed)}{hint}"
