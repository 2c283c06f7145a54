import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from devhost_server.units import (
    MAX_BYTES,
    MAX_RATE,
    MAX_SECONDS,
    Duration,
    PositiveDuration,
    Rate,
    RateOption,
    Size,
    parse_byte_rate,
    parse_duration,
    parse_rate,
    parse_size,
    quote,
    render_byte_rate,
    render_duration,
    render_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("30s", 30.0),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        (" 10s ", 10.0),
        ("0", 0.0),
        ("12", 12.0),
        (12, 12.0),
        (0.5, 0.5),
        ("366d", MAX_SECONDS),
    ],
)
def test_durations_are_seconds(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "s",
        "10 s",
        "10x",
        "-1s",
        "1m30",
        "5s5s",
        "1e3s",
        "inf",
        "nan",
        "\u0663s",
        "9" * 30,
        "367d",
        -1,
        math.nan,
        math.inf,
        10**400,
        True,
        None,
        [],
        {},
    ],
)
def test_what_is_no_duration_is_refused_with_what_is_allowed(value):
    with pytest.raises(ValueError, match=r"a duration (such as 250ms, 30s, 5m, 2h, 1d|is between 0 and 366d)"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.25, "250ms"), (90, "90s"), (300, "5m"), (7200, "2h"), (86400, "1d"), (0.00025, "0.00025s")],
)
def test_durations_are_rendered_in_the_largest_unit_that_fits(seconds, text):
    assert render_duration(seconds) == text


@given(st.floats(min_value=1e-6, max_value=MAX_SECONDS) | st.just(0.0))
def test_rendered_durations_parse_back(seconds):
    assert parse_duration(render_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64KiB", 65536),
        ("2MiB", 2 * 1024**2),
        ("10MB", 10_000_000),
        ("10mb", 10_000_000),
        ("1.5 KiB", 1536),
        ("3TiB", 3 * 1024**4),
        ("17B", 17),
        ("17", 17),
        (17, 17),
        (0, 0),
        (1e3, 1000),
    ],
)
def test_sizes_are_bytes(text, size):
    assert parse_size(text) == size
    assert isinstance(parse_size(text), int)


@pytest.mark.parametrize("value", ["", "64K", "64 Ki", "1.5B", 1.5, -1, "-1", 2**70, math.inf, False, None, "1KiB2"])
def test_what_is_no_size_is_refused_with_what_is_allowed(value):
    with pytest.raises(ValueError, match=r"a size (such as 64KiB, 2MiB, 10MB|is between 0 and)"):
        parse_size(value)


@given(st.integers(min_value=0, max_value=MAX_BYTES))
def test_rendered_sizes_parse_back(size):
    assert parse_size(render_size(size)) == size


@pytest.mark.parametrize(
    ("size", "text"), [(65536, "64KiB"), (10_000_000, "10MB"), (17, "17B"), (0, "0B"), (1024**3, "1GiB")]
)
def test_sizes_are_rendered_in_the_largest_unit_that_fits(size, text):
    assert render_size(size) == text


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/s", Rate(100, "s")),
        ("60/min", Rate(60, "min")),
        ("60 / m", Rate(60, "min")),
        ("5/HOUR", Rate(5, "h")),
        ("1/d", Rate(1, "d")),
    ],
)
def test_rates(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "value", ["", "100", 100, "0/s", "-1/s", "1/fortnight", "1.5/s", "1/s/s", f"{MAX_RATE}0/s", None]
)
def test_what_is_no_rate_is_refused_with_what_is_allowed(value):
    with pytest.raises(ValueError, match=r"a rate (such as 100/s, 60/min|counts between)"):
        parse_rate(value)


@given(st.integers(min_value=1, max_value=MAX_RATE), st.sampled_from(["s", "min", "h", "d"]))
def test_rates_parse_back_and_know_their_speed(amount, unit):
    rate = Rate(amount, unit)
    assert parse_rate(str(rate)) == rate
    assert rate.per_second * rate.period == pytest.approx(amount)


class Everything(BaseModel):
    duration: Duration = 1.0
    size: Size = 1
    rate: RateOption = Rate(1, "s")
    limit: Size | None = None


def test_fields_dump_as_numbers_and_validate_back():
    made = Everything.model_validate({"duration": "250ms", "size": "1KiB", "rate": "60/m", "limit": None})
    dumped = made.model_dump(mode="json")
    assert dumped == {"duration": 0.25, "size": 1024, "rate": "60/min", "limit": None}
    assert Everything.model_validate(dumped) == made
    assert Everything.model_validate_json(made.model_dump_json()) == made


def test_a_deadline_of_zero_is_refused_where_it_would_fail_everything():
    assert TypeAdapter(Duration).validate_python("0s") == 0
    with pytest.raises(ValidationError, match="greater than 0"):
        TypeAdapter(PositiveDuration).validate_python("0s")


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.text())))
def test_quoted_values_stay_on_one_short_line(value):
    shown = quote(value)
    assert shown.isprintable()
    assert len(shown) <= 82


@pytest.mark.parametrize(
    ("text", "rate"), [("240B/s", 240), ("10KiB/s", 10240), ("1.5kB / s", 1500), (240, 240), ("1b/S", 1)]
)
def test_bytes_a_second(text: object, rate: int) -> None:
    assert parse_byte_rate(text) == rate
    assert parse_byte_rate(render_byte_rate(rate)) == rate


@pytest.mark.parametrize("wrong", ["240B", "0B/s", "-1B/s", "240B/min", "", None, True, 1.5, "0.5B/s", [], "B/s"])
def test_what_is_no_byte_rate(wrong: object) -> None:
    with pytest.raises(ValueError, match="is not a size a second such as 240B/s"):
        parse_byte_rate(wrong)
