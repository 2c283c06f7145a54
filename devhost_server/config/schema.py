"""What the options models know about themselves, for error sentences, JSON Schema, defaults and documentation."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from devhost_server.config.models import Document
from devhost_server.config.tree import Path
from devhost_server.options import Options
from devhost_server.units import Written


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Take Annotated and unions apart; give the plain types in them."""
    if get_origin(annotation) is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from _alternatives(each)
    else:
        yield annotation


def model_of(annotation: Any) -> type[Options] | None:
    """Give the options model that a field holds, if it holds one."""
    for kind in _alternatives(annotation):
        if isinstance(kind, type) and issubclass(kind, Options):
            return kind
    return None


def item_model(annotation: Any) -> type[Options] | None:
    """Give the options model of the entries of a mapping or list field."""
    for kind in _alternatives(annotation):
        arguments = get_args(kind)
        if get_origin(kind) is dict:
            return model_of(arguments[1])
        if get_origin(kind) is tuple and arguments:
            return model_of(arguments[0])
    return None


def model_at(path: Path) -> type[Options] | None:
    """Give the options model whose fields are the keys at `path` of a configuration file."""
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


def known_paths(model: type[Options] = Document, path: Path = ()) -> Iterator[Path]:
    """Go through every key of a file that does not depend on names people choose."""
    for name, field in model.model_fields.items():
        yield (*path, name)
        inner = model_of(field.annotation)
        if inner is not None:
            yield from known_paths(inner, (*path, name))


def written(field: FieldInfo) -> Written | None:
    """Give the notation of a field whose values people write in one: duration, size, rate."""
    for metadata in (field.metadata, *(get_args(each)[1:] for each in get_args(field.annotation))):
        for mark in metadata:
            if isinstance(mark, Written):
                return mark
    return None


def default_of(field: FieldInfo) -> Any:
    """Give a field's default as people write it."""
    value = field.default
    notation = written(field)
    if notation is not None and value is not None:
        return notation.render(value)
    return list(value) if isinstance(value, tuple) else value
