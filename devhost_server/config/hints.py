"""What somebody may have meant. A hint is tried out before it is given: what it names is accepted, value and all."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

from pydantic import ValidationError

from devhost_server.config.models import Document, RouteSection
from devhost_server.config.schema import known_paths, model_at
from devhost_server.config.tree import Path, dotted
from devhost_server.config.unbuilt import is_unbuilt
from devhost_server.secrecy import names_secret

_NAMED: Final = frozenset({"routes", "upstreams"})
# How many words that are close are tried out.
_TRIES: Final = 3
# How alike two words are (of 1): difflib's own measure of close, and what a slip of the finger leaves.
_CLOSE: Final = 0.6
_MISSPELLED: Final = 0.75


def suggestion(word: str, allowed: Iterable[str]) -> str:
    """Return `` (did you mean …?)`` for a word that is close to an allowed one, else nothing."""
    close = _close(word, allowed)
    return f" (did you mean {close[0]}?)" if close else ""


def _close(word: str, allowed: Iterable[str], cutoff: float = _CLOSE) -> list[str]:
    return get_close_matches(word, list(allowed), n=_TRIES, cutoff=cutoff)


def part_of(path: Path) -> Path:
    """Return the part of a configuration that is right or wrong by itself: a section, a route or an upstream."""
    return path[:2] if path[0] in _NAMED else path[:1]


def allowed_keys(loc: Path, given: Iterable[str] = ()) -> list[str]:
    """Return the keys that may stand at `loc` of a configuration file beside those `given`; empty if none may."""
    model = model_at(loc)
    if model is None:
        return []
    names = model.allowed(set(given)) if issubclass(model, RouteSection) else list(model.model_fields)
    return [name for name in names if not is_unbuilt((*loc, name))]


class KeyHint:
    """What an unknown key may have been meant as.

    `data` is the configuration without origins, `at` the place of the key in it. `loc` is the place of the mapping
    around it as models count: a list of one that is written as its item is a list there.
    """

    def __init__(self, data: Mapping[str, Any], at: Path, loc: Path) -> None:
        self._data = data
        self._at = at
        self._loc = loc
        self._key = str(at[-1])
        self._value = _value_at(data, at)

    def __str__(self) -> str:
        return (
            self._close_by(_MISSPELLED)
            or self._meant(self._below(self._loc, self._at[:-1]))
            or self._in_this_part()
            or self._close_by(_CLOSE)
            or self._close_but_refused()
            or self._elsewhere()
        )

    def _close_keys(self, cutoff: float) -> list[str]:
        around = _value_at(self._data, self._at[:-1])
        given = [key for key in around if key != self._key and around[key] is not None]
        return [key for key in _close(self._key, allowed_keys(self._loc, given), cutoff) if key not in given]

    def _close_by(self, cutoff: float) -> str:
        fitting = (key for key in self._close_keys(cutoff) if not self._errors((*self._at[:-1], key)))
        key = next(fitting, None)
        return f" (did you mean {key}?)" if key else ""

    def _in_this_part(self) -> str:
        part = part_of(self._at)
        return self._meant(self._below(part, part)) if len(self._at) > len(part) + 1 else ""

    def _close_but_refused(self) -> str:
        """Name a key that is close although the value is not for it, and say so."""
        for key in self._close_keys(_MISSPELLED):
            inner = allowed_keys((*self._loc, key))
            if inner:
                return f" (did you mean {key}? It is a mapping, of {', '.join(inner)})"
            place = (*self._at[:-1], key)
            if all(wrong[: len(place)] == place for wrong in self._errors(place)):
                return f" (did you mean {key}? The value is not one for it)"
        return ""

    def _elsewhere(self) -> str:
        if names_secret(self._at):
            return ""
        return self._meant(self._below((), ())) or self._misplaced()

    def _misplaced(self) -> str:
        """Name a section for a key that stands outside all of them, although the value is not for it."""
        places = list(self._below((), ())) if len(self._at) == 1 else []
        return f" (did you mean {_listed(places)}? The value is not one for it)" if places else ""

    def _below(self, loc: Path, place: Path) -> Iterator[Path]:
        """Go through the keys of that name in sections of the one at `loc`, which stands at `place`."""
        model = model_at(loc)
        if model is None:
            return
        for path in known_paths(model):
            if path[-1] == self._key and (*place, *path) != self._at and not _leads_through_unbuilt((*loc, *path)):
                yield (*place, *path)

    def _meant(self, places: Iterable[Path]) -> str:
        fitting = [place for place in places if not self._errors(place)]
        return f" (did you mean {_listed(fitting)}?)" if fitting else ""

    def _errors(self, place: Path) -> set[Path]:
        """Return the places of what is wrong after the value was moved to `place` and was not before."""
        without = _picked(self._data, part_of(place), self._at)
        moved = _with(without, place, self._value)
        if moved is None:
            return {place}
        return _wrong_places(moved) - _wrong_places(without)


def fits(data: Mapping[str, Any], at: Path, value: Any) -> bool:
    """Return whether nothing is wrong with `value` at a place where something is wrong with what stands there."""
    part = part_of(at)
    without = _picked(data, part, at)
    instead = _with(without, at, value)
    return instead is not None and not _wrong_places(instead) - _wrong_places(without)


def _listed(places: Iterable[Path]) -> str:
    """Name the first two places; a key without a section is not to be taken for one of the section at hand."""
    shown = [dotted(place) if len(place) > 1 else f"{place[0]} at the top level" for place in places]
    return " or ".join(shown[:2])


def _leads_through_unbuilt(path: Path) -> bool:
    return any(is_unbuilt(path[:length]) for length in range(1, len(path) + 1))


def _wrong_places(data: Mapping[str, Any]) -> set[Path]:
    try:
        Document.model_validate(data)
    except ValidationError as error:
        return {(*each["loc"], each["type"]) for each in error.errors(include_url=False, include_input=False)}
    return set()


def _value_at(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data


def _picked(data: Mapping[str, Any], part: Path, left_out: Path) -> dict[str, Any]:
    """Copy one part of a configuration, less the key at `left_out`."""
    picked: Any = data.get(str(part[0]))
    if len(part) == 2:
        picked = {part[1]: picked.get(part[1])} if isinstance(picked, dict) else {}
    copied: dict[str, Any] = _copied({part[0]: picked} if picked is not None else {}, left_out)
    return copied


def _copied(value: Any, left_out: Path | None = None) -> Any:
    def rest(key: Any) -> Path | None:
        return left_out[1:] if left_out and left_out[0] == key else None

    if isinstance(value, dict):
        return {key: _copied(child, rest(key)) for key, child in value.items() if rest(key) != ()}
    if isinstance(value, list):
        return [_copied(child, rest(index)) for index, child in enumerate(value)]
    return value


def _with(data: dict[str, Any], place: Path, value: Any) -> dict[str, Any] | None:
    """Return a copy with a value where there was none; None if there was one."""
    copied: dict[str, Any] = _copied(data)
    inner: Any = copied
    for key in place[:-1]:
        if isinstance(inner, dict) and inner.get(key) is None:
            inner[key] = {}
        if not isinstance(inner, dict | list):
            return None
        inner = inner[key]  # type: ignore[index] # an index where there is a list, a name where there is a mapping
    if not isinstance(inner, dict) or inner.get(place[-1]) is not None:
        return None
    inner[place[-1]] = value
    return copied
