"""What requests, responses and trailers share: lines, lists, lengths, trailer rules."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost_server.messages.fields import filter_trailers, join_block, parse_length, split_block, tokens, without
from devhost_server.messages.request_head import RequestFields, parse_request_block
from tests.messages import near_http
from tests.messages.trusting import STRANGER

lines = st.lists(st.tuples(near_http.names, near_http.values).map(b": ".join))


@given(lines)
def test_a_block_of_lines_splits_into_them(these: list[bytes]) -> None:
    assert split_block(join_block(these)) == these


def test_no_lines_are_no_block() -> None:
    assert join_block([]) == b""
    assert split_block(b"") == []


@given(lines, st.lists(near_http.names, max_size=3))
def test_lines_are_left_out_by_name_in_any_case(these: list[bytes], names: list[bytes]) -> None:
    doomed = {name.lower() for name in names} | {b"x"}
    left = without([*these, b"X: 1", b"x:2"], doomed)
    assert left == [line for line in these if line.partition(b":")[0].lower() not in doomed]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", []),
        (b"Close", [b"close"]),
        (b" a ,\tB,, ,c", [b"a", b"b", b"c"]),
        (b"a b,c", [b"a b", b"c"]),
    ],
)
def test_lists(value: bytes, expected: list[bytes]) -> None:
    assert list(tokens(value)) == expected


@given(st.integers(0, 10**18 - 1))
def test_lengths_are_numbers(length: int) -> None:
    assert parse_length(b"%d" % length) == length


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" 1",
        b"1 ",
        b"+1",
        b"-1",
        b"1,1",
        b"1_0",
        b"0x1",
        b"1.0",
        b"1e3",
        b"\xb2",
        "\u0663".encode(),
        b"9" * 19,
        b"\n1",
    ],
)
def test_what_is_no_length(value: bytes) -> None:
    assert parse_length(value) is None


@pytest.mark.parametrize(
    "name",
    ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "TE", "Trailer", "Upgrade", "Proxy",
     "Authorization", "Cookie", "Set-Cookie", "Content-Type", "X-Forwarded-For", "x_forwarded_for",
     "X-Forwarded-Anything", "Forwarded", "X-Real-IP", "X-Request-ID", "x_request_id", "Via", "content_length",
     "Cache-Control", "Expect"],
)  # fmt: skip
def test_trailers_that_decide_something_are_left_out(name: str) -> None:
    line = f"\r\n{name}: 1".encode()
    assert filter_trailers(b"\r\nA: 1" + line + line.upper() + b"\r\nGrpc-Status: 0") == b"\r\nA: 1\r\nGrpc-Status: 0"


@pytest.mark.parametrize(
    "block",
    [b"\r\nA", b"\r\n: 1", b"\r\nA : 1", b"\r\n A: 1", b"\r\nA: \x00", b"\r\nA: 1\n", b"\r\nA: 1\rB: 2", b"\r\n"],
)
def test_malformed_trailers(block: bytes) -> None:
    assert filter_trailers(block) is None


@given(lines)
def test_what_is_kept_of_trailers_is_a_sound_block(these: list[bytes]) -> None:
    kept = filter_trailers(join_block(these))
    assert kept is not None
    assert filter_trailers(kept) == kept
    assert set(split_block(kept) or ()) <= set(these)


def test_what_clients_invent_is_not_kept() -> None:
    """Names, lists and values differ with every request; together they are 40 MB, of which little may stay behind."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(200):
            padding = b"%04d" % number * 12_500
            block = (
                b"\r\nX" + padding + b": 1\r\nConnection: " + padding + b", b\r\nX: " + padding + b"\r\nTE: " + padding
            )
            assert isinstance(parse_request_block(block, b"GET", STRANGER), RequestFields)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2_000_000
