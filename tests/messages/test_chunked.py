"""The chunked coding: the same content however it is cut, and nothing that another reader would not take."""

import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from devhost_server.messages.chunked import END, LAST_CHUNK, ChunkedDecoder, ChunkedError, encode
from tests.messages import llhttp, near_http, ours

LIMIT = 4096
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
SENTINEL = b"GET /sentinel HTTP/1.1\r\nHost: a\r\n\r\n"


def decode(*parts: bytes, limit: int = LIMIT) -> tuple[bytes, bytes, bytes] | None:
    """Give content, trailers and rest of a body that comes in these parts; None if it is refused or unfinished."""
    decoder = ChunkedDecoder(limit)
    content, rest = b"", b""
    try:
        for part in parts:
            if decoder.done:
                rest += part
            else:
                pieces = decoder.feed(part)
                assert all(pieces)
                content += b"".join(pieces)
    except ChunkedError:
        return None
    return (content, decoder.trailers, decoder.rest + rest) if decoder.done else None


def refused(data: bytes, limit: int = LIMIT) -> bool:
    """Whether these bytes alone are refused, rather than waited behind."""
    try:
        ChunkedDecoder(limit).feed(data)
    except ChunkedError:
        return True
    return False


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"0\r\n\r\n", (b"", b"", b"")),
        (b"3\r\nabc\r\n0\r\n\r\nGET", (b"abc", b"", b"GET")),
        (b"A\r\n0123456789\r\n1\r\n\n\r\n00\r\n\r\n", (b"0123456789\n", b"", b"")),
        (b'3;a;b="c d"\r\nabc\r\n0;last\r\n\r\n', (b"abc", b"", b"")),
        (b"0\r\nX: 1\r\ny:2\r\n\r\n..", (b"", b"\r\nX: 1\r\ny:2", b"..")),
        (b"0\r\nHost: evil\r\nContent-Length: 3\r\nX: 1\r\nX_Forwarded_For: 1\r\nX-Forwarded-For: 1\r\n\r\n",
         (b"", b"\r\nX: 1", b"")),
    ],
)  # fmt: skip
def test_bodies_that_are_read(body: bytes, expected: tuple[bytes, bytes, bytes]) -> None:
    assert decode(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n", b"\n", b" 3\r\n", b"3 \r\n", b"3\n", b"3\rx", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b"1_0\r\n", b"g\r\n",
        b"11111111111111111\r\n", b"3\r\nabcd", b"3\r\nabc\n", b"3\r\nabc\rx", b"3;a\x00\r\n", b"3;a\nb\r\n",
        b"3;a\rb\r\n", b"0\r\nA\r\n\r\n", b"0\r\n: x\r\n\r\n", b"0\r\nA : x\r\n\r\n", b"0\r\nA: x\r\n B: y\r\n\r\n",
        b"0\r\nA: \x00\r\n\r\n", b"0\r\nA: x\n\r\n\r\n", b"0\r\nA\nB: x", b"0\n\r\n", b"z",
    ],
)  # fmt: skip
def test_bodies_that_are_refused_without_waiting_for_more(body: bytes) -> None:
    assert refused(body)


@pytest.mark.parametrize(
    "body", [b"", b"3", b"3\r", b"3;a", b"3\r\nab", b"3\r\nabc\r", b"0\r\n", b"0\r\n\r", b"0\r\nA", b"0\r\nA: b\r\n"]
)
def test_the_rest_is_waited_for(body: bytes) -> None:
    decoder = ChunkedDecoder(LIMIT)
    decoder.feed(body)
    assert not decoder.done


def test_what_is_encoded_is_decoded() -> None:
    assert decode(encode(b"abc") + encode(b"d" * 300) + END) == (b"abc" + b"d" * 300, b"", b"")
    assert decode(encode(b"abc") + LAST_CHUNK + b"X: 1\r\n\r\n") == (b"abc", b"\r\nX: 1", b"")


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=6), st.binary(max_size=20), st.data())
def test_content_is_the_same_however_it_is_cut(contents: list[bytes], rest: bytes, data: st.DataObject) -> None:
    stream = b"".join(map(encode, contents)) + LAST_CHUNK + b"A: 1\r\n\r\n" + rest
    at = data.draw(near_http.cuts(len(stream)))
    assert decode(*near_http.pieces(stream, at)) == (b"".join(contents), b"\r\nA: 1", rest)


@settings(max_examples=300)
@given(near_http.spliced(near_http.chunked_bodies()), st.data())
@example(b"1\r\na\r\n0\r\nA: b\r\nC: d\r\n\r\n", None)
def test_a_cut_never_changes_the_verdict(body: bytes, data: st.DataObject | None) -> None:
    whole = decode(body)
    for size in (1, 2, 3):
        at = [*range(0, len(body), size), len(body)]
        assert decode(*near_http.pieces(body, at)) == whole
    if data is not None:
        assert decode(*near_http.pieces(body, data.draw(near_http.cuts(len(body))))) == whole


@settings(max_examples=400)
@given(near_http.spliced(near_http.chunked_bodies()))
def test_what_llhttp_refuses_is_refused(body: bytes) -> None:
    found = decode(body + SENTINEL)
    if found is None or near_http.read_differently(body):
        return
    content, trailers, rest = found
    first, *others = llhttp.read_requests(HEAD + body + SENTINEL)
    assert first.end
    assert first.body == content
    kept = ours.field_list(trailers)
    assert kept == [line for line in first.trailers if line[0] in dict(kept)]
    if rest == SENTINEL:
        assert [other.target for other in others] == [b"/sentinel"]


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_a_size_line_is_bounded() -> None:
    assert not refused(b"3;" + b"a" * 1000 + b"\r\n")
    assert refused(b"3;" + b"a" * 1024 + b"\r\nabc")
    assert refused(b"3;" + b"a" * 2000)


def test_all_extensions_together_are_bounded() -> None:
    chunk = b"1;" + b"a" * 900 + b"\r\nx\r\n"
    assert not refused(chunk * 10)
    assert refused(chunk * 100)


def test_the_trailer_section_is_bounded() -> None:
    section = b"A: " + b"b" * 100 + b"\r\n"
    assert decode(LAST_CHUNK + section * 3 + b"\r\n", limit=400) is not None
    assert refused(LAST_CHUNK + section * 5 + b"\r\n", limit=400)
    assert refused(LAST_CHUNK + b"A: " + b"b" * 500, limit=400)


@pytest.mark.parametrize("size", [398, 399, 400, 401, 402])
def test_the_bound_is_the_same_however_the_trailers_are_cut(size: int) -> None:
    body = LAST_CHUNK + b"A: " + b"b" * (size - 9) + b"\r\n\r\n"
    whole = decode(body, limit=400)
    assert all(decode(body[:at], body[at:], limit=400) == whole for at in range(len(body)))
    assert decode(*(body[at : at + 1] for at in range(len(body))), limit=400) == whole


def seconds_for(trailers: bytes) -> float:
    """How long it takes to read a trailer section that comes byte by byte."""
    decoder = ChunkedDecoder(1 << 20)
    decoder.feed(LAST_CHUNK)
    began = time.process_time()
    for start, end in pairwise(range(len(trailers) + 1)):
        decoder.feed(trailers[start:end])
    return time.process_time() - began


def test_dribbled_trailers_do_not_cost_their_square() -> None:
    """Eight times the bytes, sent one by one, may not cost 64 times the work."""
    short, long = (min(seconds_for(b"a:\r\n" * count) for _ in range(2)) for count in (60, 480))
    assert long < 24 * short + 0.01
