"""Heads: what their lines mean, and what is sent in their place."""

from types import ModuleType
from typing import Any, Final

import httptools
import pytest

from devhost_server.messages import forwarding as forward
from devhost_server.messages import request_head, response_head
from devhost_server.messages.fields import VALUE_BYTES, Lines, split_block
from devhost_server.messages.request_head import RequestFields, parse_request_block
from devhost_server.messages.response_head import ResponseHead, _parse_status_line, parse_response, parse_status_line
from tests.benchmarks.messages import ANSWER, BROWSER, SMALL, block_of, first_line
from tests.messages.trusting import STRANGER

HEADS: Final = {"small head": SMALL, "browser's head": BROWSER}
INSTANCE: Final = b"cafe1234"


def memory_of(module: ModuleType) -> Lines[Any]:
    """Give what a module remembers of lines, whatever it calls it."""
    (memory,) = (value for value in vars(module).values() if isinstance(value, Lines))
    return memory


def fields_of(request: bytes) -> RequestFields:
    fields = parse_request_block(block_of(request), b"GET", STRANGER)
    assert isinstance(fields, RequestFields)
    return fields


def said(fields: object) -> dict[str, object]:
    """All that an analysed head says."""
    said = {name: getattr(fields, name) for name in dir(fields) if not name.startswith("_")}
    return {name: value for name, value in said.items() if not callable(value)}


# --- requests --------------------------------------------------------------------------------------------------------


class Collected:
    """What httptools calls, as an ASGI server has it: names and values in a list."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


def known(request: bytes) -> RequestFields:
    return fields_of(request)


def unknown(request: bytes) -> RequestFields:
    memory_of(request_head).clear()
    return fields_of(request)


def httptools_alone(request: bytes) -> list[tuple[bytes, bytes]]:
    collected = Collected()
    httptools.HttpRequestParser(collected).feed_data(request)
    return collected.headers


@pytest.mark.benchmark(group="fields of a request")
@pytest.mark.parametrize("parse", [known, unknown, httptools_alone])
@pytest.mark.parametrize("request_name", HEADS)
def test_lines_of_requests_are_remembered(benchmark: Any, request_name: str, parse: Any) -> None:
    """A line that came before, on whatever connection, is looked up whole: that saves splitting, checking and
    classifying it. httptools is the C parser that servers use: it only collects names and values, and what each means
    for a proxy would still have to be found out.
    """
    request = HEADS[request_name]
    found = benchmark(parse, request)
    expected = fields_of(request)
    if isinstance(found, RequestFields):
        assert said(found) == said(expected)
    else:
        lines = [line.partition(b": ") for line in expected.lines]
        assert found == [(name.lower(), value) for name, _, value in lines]


def line_by_line(lines: list[bytes]) -> bool:
    return all(line.translate(None, VALUE_BYTES) == b"" for line in lines)


def byte_by_byte(lines: list[bytes]) -> bool:
    return all(byte == 9 or (byte >= 32 and byte != 127) for line in lines for byte in line)


@pytest.mark.benchmark(group="controls in a browser's head")
@pytest.mark.parametrize("check", [line_by_line, byte_by_byte])
def test_bytes_are_checked_a_line_at_a_time(benchmark: Any, check: Any) -> None:
    """Taking all that is allowed off a line leaves what is not: that saves looking at each byte in Python, for lines
    that are met for the first time.
    """
    lines = split_block(block_of(BROWSER))
    assert benchmark(check, lines)
    assert not check([*lines, b"X-Bad: a\x00b"])


# --- what is sent to the target --------------------------------------------------------------------------------------


class Outgoing:
    """One request's way out, with the parts that its connection keeps."""

    def __init__(self, request: bytes) -> None:
        self.fields = fields_of(request)
        self.peer = STRANGER
        self.path = first_line(request).split(b" ")[1]
        self.request_id = b"0123456789abcdef0123456789abcdef"
        self.before, self.behind = forward.around_request_id(
            self.fields, self.peer, INSTANCE, old=False, host=self.fields.host or b"", host_line=None
        )

    def prepared(self) -> bytes:
        return b"".join((b"GET", b" ", self.path, self.before, self.request_id, self.behind, b"\r\n\r\n"))

    def built(self) -> bytes:
        return forward.request_head(
            b"GET",
            self.path,
            self.fields,
            old=False,
            host=self.fields.host or b"",
            host_line=None,
            peer=self.peer,
            request_id=self.request_id,
            instance=INSTANCE,
            hop=b"\r\n\r\n",
        )

    def line_by_line(self) -> bytes:
        """Every line from its name and value, as a client library builds a head."""
        lines = [line.partition(b": ") for line in self.fields.kept]
        pairs = [(name, value) for name, _, value in lines]
        host, client = self.fields.host or b"", self.peer.address
        pairs += [
            (b"X-Forwarded-For", client),
            (b"X-Forwarded-Proto", b"http"),
            (b"X-Real-IP", client),
            (b"Forwarded", b'for=%b;proto=http;host="%b"' % (client, host)),
            (b"X-Forwarded-Host", host),
            (b"X-Forwarded-Port", host.rpartition(b":")[2]),
            (b"X-Request-ID", self.request_id),
            (b"Via", b"1.1 devhost (" + INSTANCE + b")"),
        ]
        return b"GET %b HTTP/1.1\r\n%b\r\n" % (self.path, b"".join(b"%b: %b\r\n" % pair for pair in pairs))


@pytest.mark.benchmark(group="request head to the target")
@pytest.mark.parametrize("way", [Outgoing.prepared, Outgoing.built, Outgoing.line_by_line])
@pytest.mark.parametrize("request_name", HEADS)
def test_parts_around_the_request_id_are_kept(benchmark: Any, request_name: str, way: Any) -> None:
    """With the same fields only method, path and request id differ: keeping what stands around the id saves laying out
    the gateway's own lines for each request, and laying out the block saves joining the client's lines.
    """
    outgoing = Outgoing(HEADS[request_name])
    assert benchmark(way, outgoing) == outgoing.built()


# --- responses -------------------------------------------------------------------------------------------------------


def answer() -> ResponseHead:
    head = parse_response(first_line(ANSWER), block_of(ANSWER))
    assert isinstance(head, ResponseHead)
    return head


def unknown_answer() -> ResponseHead:
    memory_of(response_head).clear()
    return answer()


@pytest.mark.benchmark(group="head of a response")
@pytest.mark.parametrize("parse", [answer, unknown_answer], ids=["known", "unknown"])
def test_lines_of_responses_are_remembered(benchmark: Any, parse: Any) -> None:
    """Targets say the same lines again and again, all but a few: looking them up whole saves working them out."""
    head = benchmark(parse)
    assert said(head) == said(unknown_answer())
    assert head.length == 13


@pytest.mark.benchmark(group="status line")
@pytest.mark.parametrize("parse", [parse_status_line, _parse_status_line.__wrapped__], ids=["remembered", "parsed"])
def test_status_lines_are_remembered(benchmark: Any, parse: Any) -> None:
    """There are few status lines: remembering them saves taking each apart."""
    assert benchmark(parse, b"HTTP/1.1 200 OK") == (200, b"200 OK", False)
