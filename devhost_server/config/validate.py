"""From a merged tree to a valid `Document`, or to every sentence about why it is none."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Final

from pydantic import ValidationError

from devhost_server.config.expand import Expanded, ExpandError, expand
from devhost_server.config.hints import KeyHint, allowed_keys, fits, part_of, suggestion
from devhost_server.config.models import Document
from devhost_server.config.problems import Origin, Problem
from devhost_server.config.reader import type_scalar
from devhost_server.config.schema import text_at
from devhost_server.config.tree import Broken, Node, Path, dotted, find, leaves, plain, with_value, without
from devhost_server.options import KeyedError
from devhost_server.secrecy import MASK, names_secret
from devhost_server.units import quote

# A hint is tried out before it is given, which takes a millisecond.
_HINTED: Final = 100
_QUOTED: Final = re.compile("'[^']*'")


def is_secret(path: Path, origin: Origin) -> bool:
    """Return whether a value must never be shown: it came out of a file, or its key says so."""
    return origin.secret or names_secret(path)


# --- expansion -------------------------------------------------------------------------------------------------------


def expanded(
    node: Node, variables: Mapping[str, str], folders: Mapping[str, FilePath], cwd: FilePath, problems: list[Problem]
) -> Node:
    """Return the tree with every ``${…}`` replaced; what cannot be replaced becomes `Broken`, and a problem."""

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
    data = plain(tree)
    problems += [
        problem
        for count, each in enumerate(errors)
        if (problem := _problem(each, tree, data if count < _HINTED else None, complete=complete))
    ]
    left_out = frozenset(part_of(each["loc"]) for each in errors)
    return Validated(Document.model_validate(plain(without(tree, left_out))), tree, left_out)


def _with_texts(tree: Node, error: ValidationError) -> tuple[Node, list[Any]]:
    """Put text back where a field wants it and expansion had typed it; return the tree and what is still wrong."""
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


def _problem(error: Mapping[str, Any], tree: Node, data: Mapping[str, Any] | None, *, complete: bool) -> Problem | None:
    """Put one of pydantic's errors into a sentence at its place; None if it only follows from another problem.

    `data` is the tree without origins, to try out hints in; None for no hints.
    """
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
    around, _ = find(tree, found[:-1])
    beside = [str(key) for key, child in around.children() if child.value is not None]
    message = _sentence(error, loc, beside) + (_hint(error, found, data) if data is not None else "")
    if is_secret(path, node.at):
        # A sentence may quote a part of the value, or what might have been meant instead.
        message = _QUOTED.sub(MASK, redacted(message, [str(node.value)]))
    return Problem.at(node.key_at if about_key else place_of(node), dotted(path), message)


def place_of(node: Node) -> Origin:
    """Return the place to point at: that of the value, or of the key when the value is a mapping of its own lines."""
    return node.key_at if isinstance(node.value, dict) else node.at


def redacted(message: str, secrets: Iterable[str]) -> str:
    """Take secrets out of a sentence: as quoted there, and where they are long enough to be no accident, anywhere."""
    for secret in secrets:
        message = message.replace(quote(secret), MASK)
        message = message.replace(secret, MASK) if len(secret) >= 4 else message
    return message


def secrets_in(tree: Node) -> list[str]:
    """Return the texts of all secret values, longest first."""
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
    words, bound = next((words, context[name]) for name, words in _BOUNDS.items() if name in context)
    return f"{quote(given)} is out of bounds: {words} {int(bound) if bound == int(bound) else bound} is allowed"


def _not_text(given: Any, _context: Mapping[str, Any]) -> str:
    return f"{quote(given)} is not text"


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


def _sentence(error: Mapping[str, Any], loc: Path, beside: Iterable[str]) -> str:
    """Return the sentence about an error; `beside` are the keys of the mapping that an unknown key is in."""
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        return f"unknown key; allowed: {', '.join(allowed_keys(loc[:-1], beside))}"
    if kind in _EXPECTED:
        keys = ", ".join(allowed_keys(loc))
        return f"{quote(given)} is not {_EXPECTED[kind]}{f'; allowed keys: {keys}' if keys else ''}"
    make = _SENTENCES.get(kind)
    return make(given, error.get("ctx", {})) if make else str(error["msg"])


def _hint(error: Mapping[str, Any], at: Path, data: Mapping[str, Any]) -> str:
    """Return what may have been meant, as far as it would be accepted."""
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        return str(KeyHint(data, at, error["loc"][:-1]))
    if kind == "string_type" and isinstance(given, int | float) and fits(data, at, str(given)):
        return ": put it in quotes"
    return ""
