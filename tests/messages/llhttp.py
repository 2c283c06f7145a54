"""llhttp (through httptools, in its strict mode) as an independent reader of the same bytes."""

import contextlib
from dataclasses import dataclass, field
from functools import cache

import httptools

Line = tuple[bytes, bytes]


@dataclass
class Reading:
    """One message as a parser understood it. Field values are without outer blanks; `end` tells whether it is whole."""

    method: bytes = b""
    target: bytes = b""
    version: str = ""
    status: int = 0
    fields: list[Line] = field(default_factory=list)
    body: bytes = b""
    trailers: list[Line] = field(default_factory=list)
    end: bool = False
    upgrade: bool = False
    keep_alive: bool = False
    in_body: bool = False


class _Notes:
    """The callbacks of httptools: what they were told, message by message."""

    parser: httptools.HttpRequestParser | httptools.HttpResponseParser

    def __init__(self) -> None:
        self.messages: list[Reading] = []

    def on_message_begin(self) -> None:
        self.messages.append(Reading())

    def on_url(self, url: bytes) -> None:
        self.messages[-1].target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        message = self.messages[-1]
        (message.trailers if message.in_body else message.fields).append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        message, parser = self.messages[-1], self.parser
        message.in_body = True
        message.version = parser.get_http_version()
        message.upgrade = parser.should_upgrade()
        message.keep_alive = parser.should_keep_alive()
        if isinstance(parser, httptools.HttpRequestParser):
            message.method = parser.get_method()
        else:
            message.status = parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.messages[-1].body += body

    def on_message_complete(self) -> None:
        self.messages[-1].end = True


def read_requests(data: bytes) -> list[Reading]:
    """Give the requests that llhttp reads in `data` up to the first thing that it refuses."""
    notes = _Notes()
    notes.parser = httptools.HttpRequestParser(notes)
    return _feed(notes, data)


def read_responses(data: bytes) -> list[Reading]:
    """Give the responses that llhttp reads in `data`, none of them as the answer to HEAD."""
    notes = _Notes()
    notes.parser = httptools.HttpResponseParser(notes)
    return _feed(notes, data)


def _feed(notes: _Notes, data: bytes) -> list[Reading]:
    # What was read before an error stands; what follows was never read.
    with contextlib.suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
        notes.parser.feed_data(data)
    return notes.messages


@cache
def knows_method(method: bytes) -> bool:
    """Whether a method is one of llhttp's closed list for HTTP: others it refuses whatever their form."""
    return bool(read_requests(method + b" / HTTP/1.1\r\n\r\n")[0].end)
