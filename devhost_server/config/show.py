"""Configuration for people: what is in effect as YAML, where each value comes from, how environments differ."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import yaml

from devhost_server.config.layers import Layers
from devhost_server.config.models import Document
from devhost_server.config.problems import DEFAULT, Origin
from devhost_server.config.reader import type_scalar
from devhost_server.config.schema import default_of, model_of
from devhost_server.config.tree import Path, dotted, plain
from devhost_server.config.unbuilt import UNBUILT
from devhost_server.options import Options, accepts_none
from devhost_server.secrecy import masked

ABSENT: Final = "(none)"

_PLAIN: Final = re.compile(r"[A-Za-z0-9/._+][A-Za-z0-9/._+@ -]*(?::[A-Za-z0-9/._+@-][A-Za-z0-9/._+@: -]*)?")
_UNBUILT_PATHS: Final = frozenset(feature.path for feature in UNBUILT)
# An expression in a value that was expanded already is text; written back, it must stay text.
_EXPRESSION: Final = re.compile(r"\$(?=[${])")


def in_effect(tree: Mapping[str, Any], model: type[Options] = Document, path: Path = ()) -> dict[str, Any]:
    """Return what the layers say, with the defaults of what they do not say, in the order of the reference.

    Upstreams and routes stay as they are written. Secrets are in it.
    """
    shown: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        here = (*path, name)
        value, inner = tree.get(name), model_of(field.annotation)
        if here in _UNBUILT_PATHS:
            continue
        if inner is not None and (isinstance(value, dict) or not accepts_none(field)):
            shown[name] = in_effect(value or {}, inner, here)
        elif value is None and not (name in tree and accepts_none(field)):
            shown[name] = default_of(field)
        else:
            shown[name] = _without_removed(value)
    return shown


def _without_removed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_removed(child) for key, child in value.items() if child is not None}
    return value


def select(shown: Any, key: str) -> Any:
    """Return the part of the configuration under a dotted key. Raises `KeyError` with the keys that there are."""
    for part in key.split("."):
        if isinstance(shown, dict) and part in shown:
            shown = shown[part]
        elif isinstance(shown, list) and part.isdecimal() and int(part) < len(shown):
            shown = shown[int(part)]
        else:
            raise KeyError(part, list(shown) if isinstance(shown, dict) else [])
    return shown


def to_yaml(value: Any, path: Path = (), origin: Callable[[Path], str] | None = None) -> str:
    """Write a configuration so that it can be read again; with `origin`, each line ends with a comment from it."""
    lines = list(_lines(value, path, 0))
    if origin is None:
        return "".join(f"{text}\n" for text, _ in lines)
    width = min(max((len(text) for text, at in lines if at is not None), default=0), 72)
    return "".join(f"{text}\n" if at is None else f"{text:<{width}}  # {origin(at)}\n" for text, at in lines)


def _lines(value: Any, path: Path, indent: int) -> Iterator[tuple[str, Path | None]]:
    """Return the lines of a value, each with the path of the scalar (or list of scalars) on it."""
    if not _is_block(value):
        yield " " * indent + _inline(value), path
        return
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        head = f"{' ' * indent}{scalar(str(key), expanded=False)}:" if isinstance(value, dict) else f"{' ' * indent}-"
        if not _is_block(child):
            yield f"{head} {_inline(child)}", (*path, key)
        elif isinstance(value, dict):
            yield head, None
            yield from _lines(child, (*path, key), indent + 2)
        else:
            first, *rest = _lines(child, (*path, key), indent + 2)
            yield f"{head} {first[0].lstrip()}", first[1]
            yield from rest


def _is_block(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value)
    return isinstance(value, list) and any(isinstance(item, dict | list) for item in value)


def _inline(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(scalar, value))}]"
    return "{}" if isinstance(value, dict) else scalar(value)


def scalar(value: Any, *, expanded: bool = True) -> str:
    """Write a scalar; text that anybody's YAML would read as anything else, or that would be expanded, is quoted.

    Keys are never expanded: for them, `expanded` is False.
    """
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and value == value.strip() and type_scalar(value) == value == yaml.safe_load(value):
        return value
    quoted = json.dumps(_EXPRESSION.sub("$$", value) if expanded else value, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in quoted)


def placer(origins: Mapping[str, Origin]) -> Callable[[Path], str]:
    """Return a function that returns where the value at a path comes from."""
    items: dict[str, list[Origin]] = {}
    for key, at in origins.items():
        parent, _, last = key.rpartition(".")
        if last.isdecimal():
            items.setdefault(parent, []).append(at)

    def place(path: Path) -> str:
        key = dotted(path)
        found = [origins[key]] if key in origins else _of_list(items.get(key, [DEFAULT]))
        return "; ".join(dict.fromkeys(f"{at}, from {at.via}" if at.via else str(at) for at in found))

    return place


def _of_list(items: list[Origin]) -> list[Origin]:
    """Return the places of a list: its items stand in one layer, but each may be expanded from its own expression."""
    return [items[0], *(at for at in items[1:] if at.via)]


def flat(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Go through the scalars and lists of scalars of a configuration."""
    if not _is_block(value):
        yield path, value
        return
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        yield from flat(child, (*path, key))


def differences(first: Layers, second: Layers) -> list[tuple[str, Any, Any]]:
    """Return key, value and value for each key that differs; `ABSENT` where one environment does not have it.

    The layers are compared as they are written, before expansion: no variable and no secret is needed for it.
    """
    left, right = (dict(flat(in_effect(plain(layers.tree)))) for layers in (first, second))
    keys = [*left, *(key for key in right if key not in left)]
    pairs = ((key, left.get(key, ABSENT), right.get(key, ABSENT)) for key in keys)
    return [(dotted(key), _literal_masked(key, a), _literal_masked(key, b)) for key, a, b in pairs if a != b]


def _literal_masked(path: Path, value: Any) -> Any:
    """Mask a secret that stands in the file itself; the expression that leads to one gives nothing away."""
    hidden = isinstance(value, str) and value != ABSENT and "${" not in value
    return masked(value, (), path) if hidden else value
