"""What an upstream may answer, and that no other reader finds another answer in it."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from devhost_server.failures import Fault
from devhost_server.messages.response_head import ResponseHead, parse_response
from devhost_server.messages.reuse import Reason
from tests.messages import llhttp, near_http, ours

SENTINEL = b"HTTP/1.1 418 sentinel\r\nContent-Length: 0\r\n\r\n"


def head_of(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK") -> ResponseHead:
    found = parse_response(status, b"".join(b"\r\n" + line for line in lines))
    assert isinstance(found, ResponseHead), found
    return found


def refusal(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK") -> str:
    found = parse_response(status, b"".join(b"\r\n" + line for line in lines))
    assert isinstance(found, Fault), found
    assert (found.failure.flag, found.failure.status) == ("UP", 502)
    return found.failure.error


@pytest.mark.parametrize(
    ("line", "status", "passed_on", "old"),
    [
        (b"HTTP/1.1 200 OK", 200, b"200 OK", False),
        (b"HTTP/1.0 404 Not Found", 404, b"404 Not Found", True),
        (b"HTTP/1.1 200", 200, b"200 ", False),
        (b"HTTP/1.1 200 ", 200, b"200 ", False),
        (b"HTTP/1.1 599 \xc3\xa9 \t!", 599, b"599 \xc3\xa9 \t!", False),
        (b"HTTP/1.1 100 Continue", 100, b"100 Continue", False),
    ],
)
def test_status_lines_that_are_read(line: bytes, status: int, passed_on: bytes, old: bool) -> None:
    head = head_of(status=line)
    assert (head.status, head.line, head.old) == (status, passed_on, old)


@pytest.mark.parametrize(
    "line",
    [b"", b"HTTP/1.1", b"HTTP/1.1 ", b"HTTP/1.1 20", b"HTTP/1.1 2000", b"HTTP/1.1 099 x", b"HTTP/1.1 600 x",
     b"HTTP/1.1 200x", b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK", b" HTTP/1.1 200 OK", b"http/1.1 200 OK", b"HTTP/2 200",
     b"HTTP/1.2 200 OK", b"HTTP/1.1 +20 OK", b"HTTP/1.1 2 0 OK", b"HTTP/1.1 200 a\rb", b"HTTP/1.1 200 a\nb",
     b"HTTP/1.1 200 \x00", b"ICY 200 OK"],
)  # fmt: skip
def test_status_lines_that_are_refused(line: bytes) -> None:
    assert refusal(status=line) == "http_protocol_error"


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ([b"A"], "http_protocol_error"),
        ([b": x"], "http_protocol_error"),
        ([b"A : x"], "http_protocol_error"),
        ([b"A: x", b"\tfolded"], "http_protocol_error"),
        ([b"A: x\x00"], "http_protocol_error"),
        ([b"A: x\ry"], "http_protocol_error"),
        ([b"A: x\ny"], "http_protocol_error"),
        ([b"Content-Length: 1", b"Content-Length: 1"], "http_protocol_error"),
        ([b"Content-Length: 1,1"], "http_protocol_error"),
        ([b"Content-Length: -1"], "http_protocol_error"),
        ([b"Content-Length: 1", b"Transfer-Encoding: chunked"], "http_protocol_error"),
        ([b"Transfer-Encoding: gzip, chunked"], "http_response_transfer_coding"),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], "http_response_transfer_coding"),
        ([b"Transfer-Encoding: identity"], "http_response_transfer_coding"),
        ([b"Transfer-Encoding:"], "http_response_transfer_coding"),
    ],
)
def test_fields_that_are_refused(lines: list[bytes], error: str) -> None:
    assert refusal(*lines) == error


def test_chunked_in_an_old_answer_is_refused() -> None:
    assert refusal(b"Transfer-Encoding: chunked", status=b"HTTP/1.0 200 OK") == "http_response_transfer_coding"


def test_lines_are_passed_on_as_they_came() -> None:
    lines = [b"server: x", b"Set-Cookie: a=1", b"set-cookie: b=2", b"Content-Length: 3", b"X: \xe9"]
    assert head_of(*lines).forward == b"".join(b"\r\n" + line for line in lines)
    assert head_of(*lines).length == 3


def test_what_is_meant_for_one_hop_stays_there() -> None:
    head = head_of(
        b"A: 1", b"Connection: X-Gone, close", b"X-Gone: 1", b"Keep-Alive: 5", b"Proxy-Authenticate: x",
        b"Upgrade: h2", b"Transfer-Encoding: chunked", b"X-Request-ID: theirs", b"Trailer: B",
        b"Connection: Set-Cookie", b"Set-Cookie: c",
    )  # fmt: skip
    assert head.forward == b"\r\nA: 1\r\nTrailer: B\r\nSet-Cookie: c"
    assert head.chunked
    assert head.close


@pytest.mark.parametrize(
    ("status", "connection", "close"),
    [
        (b"HTTP/1.1 200 OK", b"", False),
        (b"HTTP/1.1 200 OK", b"Close", True),
        (b"HTTP/1.0 200 OK", b"", True),
        (b"HTTP/1.0 200 OK", b"keep-alive", False),
        (b"HTTP/1.0 200 OK", b"keep-alive, close", True),
    ],
)
def test_persistence(status: bytes, connection: bytes, close: bool) -> None:
    assert head_of(b"Connection: " + connection, status=status).close is close


@pytest.mark.parametrize(
    ("status", "method", "allowed"),
    [
        (200, b"GET", True),
        (200, b"HEAD", False),
        (204, b"GET", False),
        (304, b"GET", False),
        (100, b"GET", False),
        (101, b"GET", False),
        (404, b"POST", True),
    ],
)
def test_which_answers_have_content(status: int, method: bytes, allowed: bool) -> None:
    assert head_of(status=b"HTTP/1.1 %d x" % status).allows_body(method) is allowed


def test_a_204_is_not_passed_on_with_a_length() -> None:
    assert head_of(b"Content-Length: 0", b"A: 1", status=b"HTTP/1.1 204 x").forward == b"\r\nA: 1"


def test_what_an_upgrade_is_answered_with() -> None:
    head = head_of(
        b"Connection: Upgrade", b"Upgrade: a", b"upgrade: b", b"Sec-WebSocket-Accept: k", status=b"HTTP/1.1 101 x"
    )
    assert (head.upgrade, head.websocket_accept) == (b"a, b", b"k")
    assert head.forward == b"\r\nSec-WebSocket-Accept: k"


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    version = draw(st.sampled_from([b"HTTP/1.1"] * 30 + [b"HTTP/1.0", b"HTTP/1.1 ", b"http/1.1", b"HTTP/1.10"]))
    status = draw(st.sampled_from([b"200", b"404", b"204", b"304", b"100"] * 4 + [b"20", b"2000", b"+20"]))
    reason = draw(st.sampled_from([b" OK", b" ", b"", b" \xc3\xa9", b" a\rb", b"\tOK"]))
    lines = draw(st.lists(near_http.field_lines(), max_size=3))
    line = version + b" " + status + reason + draw(near_http.line_ends)
    return line + b"".join(lines) + b"\r\n" + draw(st.binary(max_size=20))


@st.composite
def plausible_responses(draw: st.DrawFn) -> bytes:
    """A response whose framing is announced properly, so that bodies are reached."""
    framing, body = draw(near_http.framed_bodies())
    framing = draw(st.sampled_from([framing, framing, framing, b"X: 1\r\n"]))
    status = draw(st.sampled_from([b"200 OK", b"200", b"204 None", b"304 Same", b"500 "]))
    lines = draw(st.lists(near_http.field_lines(), max_size=1))
    return b"HTTP/1.1 " + status + b"\r\n" + framing + b"".join(lines) + b"\r\n" + body


def compare(stream: bytes) -> None:
    """Assert that whatever answers the gateway accepts in these bytes, llhttp finds the very same ones."""
    accepted, reference = ours.read_responses(stream), llhttp.read_responses(stream)
    told = (stream, accepted, reference)
    for ours_read, theirs in zip(accepted, reference, strict=False):
        if near_http.read_differently(stream):
            return
        assert (theirs.status, theirs.version) == (ours_read.status, ours_read.version), told
        assert theirs.fields == ours_read.fields, told
        if theirs.upgrade:
            return
        assert theirs.body == ours_read.body, told
        assert theirs.end == ours_read.end, told
        assert set(ours_read.trailers) <= set(theirs.trailers), told
    assert len(accepted) <= len(reference), told


@settings(max_examples=300)
@given(near_http.spliced(st.one_of(responses(), plausible_responses())))
@example(b"HTTP/1.1 204 x\r\nContent-Length: 5\r\n\r\n")
@example(b"HTTP/1.1 304 x\r\nTransfer-Encoding: chunked\r\n\r\n")
def test_no_other_reader_finds_another_response(stream: bytes) -> None:
    compare(stream + SENTINEL)


@pytest.mark.parametrize("status", [b"200 OK", b"204 None", b"304 Same"])
@pytest.mark.parametrize("body", [b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n"])
def test_no_other_reader_finds_another_length(status: bytes, body: bytes) -> None:
    for framing in near_http.announced(body):
        compare(b"HTTP/1.1 " + status + b"\r\n" + framing + b"\r\n" + body + SENTINEL)


@pytest.mark.parametrize(
    ("line", "reasons"),
    [
        (b"WWW-Authenticate: NTLM", Reason.CHALLENGE),
        (b"www-authenticate: negotiate oYG2", Reason.CHALLENGE),
        (b'WWW-Authenticate: Basic realm="x", Negotiate', Reason.CHALLENGE),
        (b"Proxy-Authenticate: NTLM TlRMTVNTUAAC", Reason.CHALLENGE),
        (b'WWW-Authenticate: Basic realm="NTLM"', 0),
        (b"WWW-Authenticate: Bearer", 0),
        (b"Connection: close", Reason.CLOSE),
    ],
)
def test_what_a_head_means_for_its_connection(line: bytes, reasons: int) -> None:
    head = parse_response(b"HTTP/1.1 401 No", b"\r\n" + line)
    assert isinstance(head, ResponseHead)
    assert head.reasons == reasons


@pytest.mark.parametrize(
    ("value", "seconds", "last"),
    [
        (b"timeout=5", 4, False),
        (b"timeout=5, max=100", 4, False),
        (b'Timeout="75"', 74, False),
        (b"max=0", None, True),
        (b"timeout=1", 0.5, False),
        (b"timeout=0", 0, False),
        (b"timeout=-1", None, False),
        (b"timeout=" + b"9" * 40, None, False),
        (b"timeout", None, False),
        (b"", None, False),
    ],
)
def test_what_a_server_says_of_its_patience(value: bytes, seconds: float | None, last: bool) -> None:
    head = parse_response(b"HTTP/1.1 200 OK", b"\r\nKeep-Alive: " + value + b"\r\nContent-Length: 0")
    assert isinstance(head, ResponseHead)
    assert (head.idle_seconds, head.last) == (seconds, last)
    assert bool(head.reasons) is (last or seconds == 0)
    assert b"eep-" not in head.forward
