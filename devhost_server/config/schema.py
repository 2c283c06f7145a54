"""What the options models know about themselves, for error sentences, JSON Schema, defaults and documentation."""

from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from devhost_server.config.models import Document
from devhost_server.config.tree import Path
from devhost_server.options import Options
from devhost_server.units import Written


def alternatives(annotation: Any) -> Iterator[Any]:
    """Take Annotated and unions apart; give the plain types in them."""
    if get_origin(annotation) is Annotated:
        yield from alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from alternatives(each)
    else:
        yield annotation


def model_of(annotation: Any) -> type[Options] | None:
    """Return the options model that a field holds, if it holds one."""
    for kind in alternatives(annotation):
        if isinstance(kind, type) and issubclass(kind, Options):
            return kind
    return None


def item_model(annotation: Any) -> type[Options] | None:
    """Return the options model of the entries of a mapping or list field."""
    for kind in alternatives(annotation):
        arguments = get_args(kind)
        if get_origin(kind) is dict:
            return model_of(arguments[1])
        if get_origin(kind) is tuple and arguments:
            return model_of(arguments[0])
    return None


def model_at(path: Path) -> type[Options] | None:
    """Return the options model whose fields are the keys at `path` of a configuration file."""
    model: type[Options] | None = Document
    entries: type[Options] | None = None
    for key in path:
        if entries is not None:
            model, entries = entries, None
        elif model is not None and key in model.model_fields:
            annotation = model.model_fields[str(key)].annotation
            model, entries = model_of(annotation), item_model(annotation)
        else:
            return None
    return model


def text_at(path: Path) -> Literal["any", "notation"] | None:
    """Return whether what stands at `path` of a configuration file is text, and nothing but text (or ``null``).

    "any" is text that means itself (a token, an owner, a header value); "notation" is text of some form that the field
    checks (an address, a host name); None is everything else, unknown keys included.
    """
    field = _field_at(path)
    if field is None or not set(alternatives(field.annotation)) <= {str, NoneType}:
        return None
    return "any" if written(field) is None else "notation"


def is_key(path: Path) -> bool:
    """Return whether a configuration file may say something at `path`."""
    return _field_at(path) is not None


def _field_at(path: Path) -> FieldInfo | None:
    field = FieldInfo.from_annotation(Document)
    for key in path:
        found = _child_of(field.annotation, key)
        if found is None:
            return None
        field = found
    return field


def _child_of(annotation: Any, key: str | int) -> FieldInfo | None:
    """Return the field under one key; a list of one may be written as its item."""
    for kind in alternatives(annotation):
        arguments = get_args(kind)
        if isinstance(kind, type) and issubclass(kind, Options):
            return kind.model_fields.get(str(key))
        if get_origin(kind) is dict:
            return FieldInfo.from_annotation(arguments[1])
        if get_origin(kind) is tuple and arguments and arguments[0] != ():
            return FieldInfo.from_annotation(arguments[0]) if isinstance(key, int) else _child_of(arguments[0], key)
    return None


def known_paths(model: type[Options] = Document, path: Path = ()) -> Iterator[Path]:
    """Go through every key of a file that does not depend on names people choose."""
    for name, field in model.model_fields.items():
        yield (*path, name)
        inner = model_of(field.annotation)
        if inner is not None:
            yield from known_paths(inner, (*path, name))


def written(field: FieldInfo) -> Written | None:
    """Return the notation of a field whose values people write in one: duration, size, rate."""
    arms = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else ()
    marks = [*field.metadata, *(mark for arm in arms for mark in get_args(arm)[1:])]
    return next((mark for mark in marks if isinstance(mark, Written)), None)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file, for editors: shorthand, ``${…}`` and ``null`` included."""
    schema = Document.model_json_schema(mode="validation")
    definitions = {name: _loosened(each) for name, each in schema.pop("$defs").items()}
    expression = {"type": "string", "pattern": r"\$\{.+\}", "description": "An expression such as ${VAR:-default}."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_loosened(schema),
        "title": "devhost-server configuration",
        "$defs": {**definitions, "Expression": expression},
    }


_ANNOTATIONS: Final[tuple[str, ...]] = ("description", "default")


def _loosened(schema: dict[str, Any]) -> dict[str, Any]:
    """Allow null and expressions for every property, and drop the titles that only repeat the keys."""
    schema = {key: value for key, value in schema.items() if key != "title"}
    if "anyOf" in schema:
        schema["anyOf"] = [_loosened(each) for each in schema["anyOf"]]
    if "properties" in schema:
        schema["properties"] = {key: _loosened_value(each) for key, each in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            schema[key] = _loosened_value(schema[key])
    return schema


def _loosened_value(schema: dict[str, Any]) -> dict[str, Any]:
    schema = _loosened(schema)
    outer: dict[str, Any] = {key: schema.pop(key) for key in _ANNOTATIONS if key in schema}
    kinds = schema.pop("anyOf", None) or [schema]
    kinds += [kind["items"] for kind in kinds if "items" in kind]  # a list may be written as its only item
    if any("$ref" in kind for kind in kinds):
        outer.pop("default", None)  # a whole section's, which its own keys have
    others: list[dict[str, Any]] = [{"$ref": "#/$defs/Expression"}, {"type": "null"}]
    return {**outer, "anyOf": [*kinds, *(each for each in others if each not in kinds)]}


def default_of(field: FieldInfo) -> Any:
    """Return a field's default as people write it."""
    value = field.default
    notation = written(field)
    if notation is not None and value is not None:
        return notation.render(value)
    return list(value) if isinstance(value, tuple) else value
