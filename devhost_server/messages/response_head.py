"""The head of an upstream's response: what it says about framing and persistence, and what is passed on.

An answer that two readers could read differently becomes a 502 and its connection is destroyed; nothing is mended.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from devhost_server.failures import UPSTREAM_CODING, UPSTREAM_PROTOCOL, Fault
from devhost_server.messages import reuse
from devhost_server.messages.fields import (
    CRLF,
    HOP_BY_HOP,
    LENGTH_DIGITS,
    VALUE_BYTES,
    Lines,
    binds_connection,
    tokens,
    without,
)

_REMEMBERED_LENGTH: Final = 128
_PATIENCE_DIGITS: Final = 9
_MARGIN_SECONDS: Final = 1

_BAD_LINE: Final = UPSTREAM_PROTOCOL("The answer does not begin with an HTTP/1.1 status line.")
_BAD_FIELD: Final = UPSTREAM_PROTOCOL("A header of the answer is not a name, directly a colon, and a clean value.")
_BAD_LENGTH: Final = UPSTREAM_PROTOCOL("Content-Length of the answer is not one whole number, given once.")
_BAD_FRAMING: Final = UPSTREAM_PROTOCOL("The answer has both Content-Length and Transfer-Encoding.")
_BAD_CODING: Final = UPSTREAM_CODING("Transfer-Encoding of the answer is not `chunked`, given once.")
_OLD_CODING: Final = UPSTREAM_CODING("The answer is HTTP/1.0 and has a Transfer-Encoding (RFC 9112 §6.1).")


class ResponseHead:
    """The head of one response. `line` is status and reason as sent; `forward` is the block that is passed on."""

    __slots__ = (
        "before_id",
        "behind_id",
        "bodiless",
        "challenge",
        "chunked",
        "close",
        "dated",
        "event_stream",
        "forward",
        "idle_seconds",
        "last",
        "length",
        "line",
        "nominated",
        "old",
        "plain",
        "reasons",
        "status",
        "upgrade",
        "websocket_accept",
    )

    def __init__(self, status: int, line: bytes, *, old: bool) -> None:
        self.status = status
        self.line = line
        self.old = old  # HTTP/1.0
        self.bodiless = status < 200 or status in (204, 304)  # whoever asked
        self.plain = False  # it has content of a known length, and says nothing that matters to a connection
        self.forward = b""
        self.before_id = self.behind_id = b""  # what is sent before and behind the request id, once it was made
        self.length: int | None = None
        self.chunked = False
        self.close = False
        self.last = False  # it says that the connection takes no more requests
        self.challenge = False  # to a scheme that authenticates the connection
        self.reasons = 0  # what it means for using the connection again (see `reuse`)
        self.idle_seconds: float | None = None  # how long it says that it keeps an idle connection, less a margin
        self.dated = False
        self.event_stream = False  # text/event-stream: it may never end, and be silent for long
        self.nominated: tuple[bytes, ...] = ()
        self.upgrade: bytes | None = None
        self.websocket_accept: bytes | None = None

    def allows_body(self, method: bytes) -> bool:
        """Whether content follows this head as the answer to `method` (RFC 9112 §6.3 items 1 and 2)."""
        return not self.bodiless and method != b"HEAD"


_Take = Callable[[ResponseHead, bytes], "bool | Fault"]


def _content_length(head: ResponseHead, value: bytes) -> bool | Fault:
    if not value.isdigit() or len(value) > LENGTH_DIGITS or head.length is not None:
        return _BAD_LENGTH
    head.length = int(value)
    return head.status != 204 and head.status >= 200  # RFC 9110 §8.6: not in a 1xx or 204


def _transfer_encoding(head: ResponseHead, value: bytes) -> bool | Fault:
    if head.chunked or value.lower() != b"chunked":
        return _BAD_CODING
    if head.old:
        return _OLD_CODING
    head.chunked = True
    return False


def _connection(head: ResponseHead, value: bytes) -> bool | Fault:
    if value != b"keep-alive" or head.old:  # else it says what HTTP/1.1 does anyway
        head.nominated += tokens(value)
    return False


def _upgrade(head: ResponseHead, value: bytes) -> bool | Fault:
    head.upgrade = value if head.upgrade is None else head.upgrade + b", " + value
    return False


def _websocket_accept(head: ResponseHead, value: bytes) -> bool | Fault:
    head.websocket_accept = value if head.websocket_accept is None else b""  # two of them fit nothing
    return True


def _challenge(head: ResponseHead, value: bytes) -> bool | Fault:
    head.challenge |= binds_connection(value)
    return True


def _proxy_challenge(head: ResponseHead, value: bytes) -> bool | Fault:
    _challenge(head, value)
    return False


def _date(head: ResponseHead, _value: bytes) -> bool | Fault:
    head.dated = True
    return True


def _keep_alive(head: ResponseHead, value: bytes) -> bool | Fault:
    """Believe what a server says of its patience (RFC 9112 §C.2.2); what cannot be read says nothing."""
    for part in tokens(value):
        name, _, number = part.partition(b"=")
        seconds = number.strip(b' \t"')
        if not seconds.isdigit() or len(seconds) > _PATIENCE_DIGITS:
            continue
        if name.rstrip() == b"timeout":
            # A second for the way there; a server that gives just one is left half of it.
            head.idle_seconds = max(int(seconds) - _MARGIN_SECONDS, int(seconds) / 2)
        elif name.rstrip() == b"max" and not int(seconds):
            head.last = True
    return False


def _content_type(head: ResponseHead, value: bytes) -> bool | Fault:
    head.event_stream = value.partition(b";")[0].rstrip().lower() == b"text/event-stream"
    return True


def _drop(_: ResponseHead, _value: bytes) -> bool | Fault:
    return False


def _malformed(_: ResponseHead, _value: bytes) -> bool | Fault:
    return _BAD_FIELD


_TAKES: Final[dict[bytes, _Take | None]] = {
    **dict.fromkeys(HOP_BY_HOP, _drop),
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"connection": _connection,
    b"upgrade": _upgrade,
    b"sec-websocket-accept": _websocket_accept,
    b"date": _date,
    b"www-authenticate": _challenge,
    b"proxy-authenticate": _proxy_challenge,
    b"content-type": _content_type,
    b"keep-alive": _keep_alive,
    b"x-request-id": _drop,  # the gateway's own follows; an upstream that echoes it would double it
    b"trailer": None,
    b"via": None,
}
_LINES: Final[Lines[_Take]] = Lines(_TAKES, _malformed)


def parse_status_line(line: bytes) -> tuple[int, bytes, bool] | Fault:
    """Return (status, status and reason as sent, whether it is HTTP/1.0) of a status line, or why it is refused.

    RFC 9112 §4. A missing reason is tolerated with or without its blank. Short ones are remembered.
    """
    return _parse_status_line(line) if len(line) <= _REMEMBERED_LENGTH else _parse_status_line.__wrapped__(line)


@lru_cache(maxsize=512)
def _parse_status_line(line: bytes) -> tuple[int, bytes, bool] | Fault:
    version, status = line[:9], line[9:12]
    if (
        version not in (b"HTTP/1.1 ", b"HTTP/1.0 ")
        or not status.isdigit()
        or not 100 <= int(status) <= 599
        or line[12:13] not in (b"", b" ")
        or line.translate(None, VALUE_BYTES)
    ):
        return _BAD_LINE
    # RFC 9112 §4: the blank is sent even when the reason is absent.
    return int(status), line[9:] if line[12:13] else line[9:] + b" ", version == b"HTTP/1.0 "


def parse_response(status_line: bytes, block: bytes) -> ResponseHead | Fault:
    """Analyse a response head, given its status line and its field block."""
    begin = parse_status_line(status_line)
    if isinstance(begin, Fault):
        return begin
    head = ResponseHead(begin[0], begin[1], old=begin[2])
    kept = []
    lines = block.split(CRLF)
    del lines[0]
    for line in lines:
        meaning = _LINES[line]
        if isinstance(meaning, bytes):
            kept.append(meaning)
            continue
        take, value, passed_on = meaning
        verdict = take(head, value)
        if verdict is True:
            kept.append(passed_on)
        elif verdict is not False:
            return verdict
    if head.nominated or head.old:
        kept = _apply_connection(head, kept)
    if head.chunked and head.length is not None:
        return _BAD_FRAMING
    if head.chunked and head.status in (204, 304):
        head.chunked = False  # no content, whatever is said about its framing (RFC 9112 §6.1)
    head.forward = CRLF + CRLF.join(kept) if kept else b""
    head.reasons = reuse.of_answer(close=head.close or head.last or head.idle_seconds == 0, challenge=head.challenge)
    head.plain = bool(head.length) and not (
        head.bodiless or head.reasons or head.idle_seconds is not None or head.event_stream or head.upgrade is not None
    )
    return head


def _apply_connection(head: ResponseHead, kept: list[bytes]) -> list[bytes]:
    """Act on the Connection options; give the lines that are left."""
    options = head.nominated
    # RFC 9112 §9.3: HTTP/1.1 persists unless it says close, HTTP/1.0 only if it says keep-alive.
    head.close = b"close" in options or (head.old and b"keep-alive" not in options)
    doomed = _LINES.nominated(options)
    return without(kept, doomed) if doomed else kept
