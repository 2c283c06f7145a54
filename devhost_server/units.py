"""What people write for times, sizes and rates, and the numbers the program works with.

Durations become seconds (float), sizes bytes (int), rates a frozen `Rate`. Each parser takes what YAML gives (a number
or a text) and raises `ValueError` with a sentence that says what is allowed; each has a renderer whose text parses back
to the same value. `Duration`, `Size` and `RateOption` are the field types of options models; they dump as plain numbers
(a rate as its text) and carry their renderer for `config show` and the reference page.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, InstanceOf, PlainSerializer, WithJsonSchema

# A year bounds every timer: beyond it a number is a mistake, and event loops count milliseconds in 64 bits.
MAX_SECONDS: Final = 366 * 86400.0
# Counters of bytes are 64-bit cells; what is left above this bound is room for sums.
MAX_BYTES: Final = 2**62
MAX_RATE: Final = 10**9

DURATION_ALLOWED: Final = "a duration such as 250ms, 30s, 5m, 2h, 1d (a plain number is seconds)"
SIZE_ALLOWED: Final = "a size such as 64KiB, 2MiB, 10MB (a plain number is bytes)"
BYTE_RATE_ALLOWED: Final = "a size a second such as 240B/s, 10KiB/s"
RATE_ALLOWED: Final = "a rate such as 100/s, 60/min, 1000/h"

_SECONDS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_BINARY: Final = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10}
_DECIMAL: Final = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 10**3}
_BYTES: Final = {name.lower(): length for name, length in {**_BINARY, **_DECIMAL, "B": 1}.items()}
_PERIODS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PERIOD_NAMES: Final = {"s": "s", "sec": "s", "m": "min", "min": "min", "h": "h", "hour": "h", "d": "d", "day": "d"}

# Digits are bounded so that a page of them is refused at once instead of being computed with.
_NUMBER: Final = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,40})?")
_DURATION: Final = re.compile(rf"({_NUMBER.pattern})(ms|[smhd])")
_SIZE: Final = re.compile(rf"({_NUMBER.pattern})\s?([kmgt]i?b|b)?", re.IGNORECASE)
_RATE: Final = re.compile(r"([0-9]{1,20})\s?/\s?([a-z]{1,6})")


def parse_duration(value: object) -> float:
    """Read seconds, 0 to `MAX_SECONDS`. Parts add up (``1h30m``); a number without a unit is seconds."""
    seconds = _seconds(value.strip()) if isinstance(value, str) else _plain_number(value)
    if seconds is None:
        raise ValueError(f"{quote(value)} is not {DURATION_ALLOWED}")
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"{quote(value)} is out of bounds: a duration is between 0 and 366d")
    return float(seconds)


def _seconds(text: str) -> float | None:
    if _NUMBER.fullmatch(text):
        return float(text)
    parts = {unit: number for number, unit in _DURATION.findall(text)}
    # Written back in the same order, so junk between parts and a unit given twice are both seen.
    if not parts or "".join(number + unit for unit, number in parts.items()) != text:
        return None
    return float(sum(Fraction(number) * _length(unit) for unit, number in parts.items()))


def _length(unit: str) -> Fraction:
    return Fraction(1, 1000) if unit == "ms" else Fraction(_SECONDS[unit])


def render_duration(seconds: float) -> str:
    """Return the shortest exact text: 90 seconds are ``90s``, 7200 are ``2h``, a quarter second is ``250ms``."""
    for unit, length in _SECONDS.items():
        if seconds >= length and seconds % length == 0:
            return f"{int(seconds // length)}{unit}"
    milliseconds = round(seconds * 1000)
    if seconds and milliseconds / 1000 == seconds:
        return f"{milliseconds}ms"
    return f"{Decimal(repr(float(seconds))).normalize():f}s"


def parse_size(value: object) -> int:
    """Read bytes, 0 to `MAX_BYTES`: KiB, MiB, GiB, TiB count in 1024s, kB, MB, GB, TB in 1000s, in any case."""
    size = _bytes(value.strip()) if isinstance(value, str) else _plain_number(value)
    if size is None or size % 1:
        raise ValueError(f"{quote(value)} is not {SIZE_ALLOWED}")
    if not 0 <= size <= MAX_BYTES:
        raise ValueError(f"{quote(value)} is out of bounds: a size is between 0 and {MAX_BYTES >> 40}TiB")
    return int(size)


def _bytes(text: str) -> Fraction | None:
    found = _SIZE.fullmatch(text)
    return Fraction(found[1]) * _BYTES[(found[2] or "B").lower()] if found else None


def render_size(size: int) -> str:
    """Return the shortest exact text, binary units first: 65536 is ``64KiB``, 10000000 ``10MB``, 17 ``17B``."""
    for unit, length in (_BINARY | _DECIMAL).items():
        if size >= length and size % length == 0:
            return f"{size // length}{unit}"
    return f"{size}B"


@dataclass(frozen=True, slots=True)
class Rate:
    """So many events in one period; `unit` is ``s``, ``min``, ``h`` or ``d``."""

    amount: int
    unit: str

    @property
    def period(self) -> float:
        """The length of the period in seconds."""
        return _PERIODS[self.unit]

    @property
    def per_second(self) -> float:
        """Events a second on average."""
        return self.amount / self.period

    def __str__(self) -> str:
        return f"{self.amount}/{self.unit}"


def parse_rate(value: object) -> Rate:
    """Read a rate of 1 to `MAX_RATE` events in a second, minute, hour or day."""
    if isinstance(value, Rate):
        return value
    found = _RATE.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if found is None or found[2] not in _PERIOD_NAMES:
        raise ValueError(f"{quote(value)} is not {RATE_ALLOWED}")
    if not 1 <= int(found[1]) <= MAX_RATE:
        raise ValueError(f"{quote(value)} is out of bounds: a rate counts between 1 and {MAX_RATE} a period")
    return Rate(int(found[1]), _PERIOD_NAMES[found[2]])


def parse_byte_rate(value: object) -> int:
    """Read bytes a second, 1 to `MAX_BYTES`: a size and ``/s``."""
    size, slash, unit = value.strip().rpartition("/") if isinstance(value, str) else ("", "", "")
    found = _bytes(size.strip()) if slash and unit.strip().lower() == "s" else None
    if isinstance(value, int) and not isinstance(value, bool):
        found = Fraction(value)  # as settings are published
    if found is None or found % 1 or not 1 <= found <= MAX_BYTES:
        raise ValueError(f"{quote(value)} is not {BYTE_RATE_ALLOWED}")
    return int(found)


def render_byte_rate(rate: int) -> str:
    """Return the shortest exact text: 240 is ``240B/s``, 10240 ``10KiB/s``."""
    return f"{render_size(rate)}/s"


def _plain_number(value: object) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def printable(text: str) -> str:
    """Escape what could move a cursor, end a line or hide: the result is safe to print."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def quote(value: object) -> str:
    """Show a value as it may stand in an error sentence: short, on one line, a non-scalar by its kind."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = printable(str(value))
    text = text if len(text) <= 80 else f"{text[:79]}…"
    return f"'{text}'" if isinstance(value, str) else text


@dataclass(frozen=True, slots=True)
class Written:
    """Marks a field type whose values have a name in the documentation, and perhaps a notation to render them in."""

    name: str
    render: Callable[[Any], str] = str


def _number_or_text(allowed: str, kind: str, pattern: str) -> WithJsonSchema:
    text = {"type": "string", "pattern": pattern}
    return WithJsonSchema({"anyOf": [{"type": kind, "minimum": 0}, text], "title": allowed})


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Written("duration", render_duration),
    _number_or_text(DURATION_ALLOWED, "number", r"^\s*([0-9.]+|([0-9.]+(ms|s|m|h|d))+)\s*$"),
]
"""Seconds; zero is allowed."""

PositiveDuration = Annotated[Duration, Field(gt=0)]
"""Seconds, more than zero: for deadlines that would make every exchange fail if they were zero."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Written("size", render_size),
    _number_or_text(SIZE_ALLOWED, "integer", r"^\s*[0-9.]+\s?([kmgtKMGT]?[iI]?[bB])?\s*$"),
]
"""Bytes; zero is allowed."""

ByteRate = Annotated[
    int,
    BeforeValidator(parse_byte_rate),
    Written("bytes a second", render_byte_rate),
    _number_or_text(BYTE_RATE_ALLOWED, "integer", r"^\s*[0-9.]+\s?([kmgtKMGT]?[iI]?[bB])?\s?/\s?s\s*$"),
]
"""Bytes a second; more than zero."""

RateOption = Annotated[
    InstanceOf[Rate],
    BeforeValidator(parse_rate),
    PlainSerializer(str, return_type=str, when_used="json"),
    Written("rate", str),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]+ ?/ ?(s|sec|m|min|h|hour|d|day)$", "title": RATE_ALLOWED}),
]
"""A `Rate`."""
