"""The head of an upstream's response: what it says about framing and persistence, and what is passed on.

An answer that two readers could read differently becomes a 502 and its connection is destroyed; nothing is mended.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from devhost_server.failures import UPSTREAM_CODING, UPSTREAM_PROTOCOL, Fault
from devhost_server.http.fields import (
    HOP_BY_HOP,
    VALUE_BYTES,
    Names,
    join_block,
    parse_length,
    split_block,
    tokens,
    without,
)

_BAD_LINE: Final = UPSTREAM_PROTOCOL("The answer does not begin with an HTTP/1.1 status line.")
_BAD_BYTES: Final = UPSTREAM_PROTOCOL("A header of the answer holds a control character, or a CR or LF on its own.")
_BAD_FIELD: Final = UPSTREAM_PROTOCOL("A header of the answer is not a name, directly a colon, and a value.")
_BAD_LENGTH: Final = UPSTREAM_PROTOCOL("Content-Length of the answer is not one whole number, given once.")
_BAD_FRAMING: Final = UPSTREAM_PROTOCOL("The answer has both Content-Length and Transfer-Encoding.")
_BAD_CODING: Final = UPSTREAM_CODING("Transfer-Encoding of the answer is not `chunked`, given once.")
_OLD_CODING: Final = UPSTREAM_CODING("The answer is HTTP/1.0 and has a Transfer-Encoding (RFC 9112 §6.1).")


@dataclass(slots=True, eq=False)
class ResponseHead:
    """The head of one response. `line` is status and reason as sent; `forward` is the block that is passed on."""

    status: int
    line: bytes
    old: bool  # HTTP/1.0
    kept: list[bytes] = field(default_factory=list)
    nominated: list[bytes] = field(default_factory=list)
    forward: bytes = b""
    length: int | None = None
    chunked: bool = False
    close: bool = False
    upgrade: bytes | None = None
    websocket_accept: bytes | None = None

    def allows_body(self, method: bytes) -> bool:
        """Whether content follows this head as the answer to `method` (RFC 9112 §6.3 items 1 and 2)."""
        return method != b"HEAD" and self.status not in (204, 304) and self.status >= 200


_Take = Callable[[ResponseHead, bytes], "bool | Fault"]


def _content_length(head: ResponseHead, value: bytes) -> bool | Fault:
    length = parse_length(value)
    if length is None or head.length is not None:
        return _BAD_LENGTH
    head.length = length
    return head.status != 204  # RFC 9110 §8.6: not in a 204


def _transfer_encoding(head: ResponseHead, value: bytes) -> bool | Fault:
    if head.chunked or value.lower() != b"chunked":
        return _BAD_CODING
    if head.old:
        return _OLD_CODING
    head.chunked = True
    return False


def _connection(head: ResponseHead, value: bytes) -> bool | Fault:
    head.nominated += tokens(value)
    return False


def _upgrade(head: ResponseHead, value: bytes) -> bool | Fault:
    head.upgrade = value if head.upgrade is None else head.upgrade + b", " + value
    return False


def _websocket_accept(head: ResponseHead, value: bytes) -> bool | Fault:
    head.websocket_accept = value
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
    b"x-request-id": _drop,  # the gateway's own follows; an upstream that echoes it would double it
    b"trailer": None,
    b"via": None,
}
_NAMES: Final[Names[_Take]] = Names(_TAKES, _malformed)


def parse_status_line(line: bytes) -> ResponseHead | Fault:
    """Begin a head from its status line (RFC 9112 §4); a missing reason is tolerated with or without its blank."""
    version, status = line[:9], line[9:12]
    if (
        version not in (b"HTTP/1.1 ", b"HTTP/1.0 ")
        or not status.isdigit()
        or not 100 <= int(status) <= 599
        or line[12:13] not in (b"", b" ")
        or line.translate(None, VALUE_BYTES)
    ):
        return _BAD_LINE
    return ResponseHead(int(status), line[9:], version == b"HTTP/1.0 ")


def parse_response(line: bytes, block: bytes) -> ResponseHead | Fault:
    """Analyse a response head, given its status line and its field block."""
    head = parse_status_line(line)
    if isinstance(head, Fault):
        return head
    lines = split_block(block)
    if lines is None:
        return _BAD_BYTES
    kept, seen = head.kept, _NAMES.seen
    for field_line in lines:
        name, colon, value = field_line.partition(b":")
        take = seen[name] if name in seen else _NAMES.learn(name)
        if not colon:
            return _BAD_FIELD
        if take is None:
            kept.append(field_line)
            continue
        verdict = take(head, value.strip(b" \t"))
        if verdict is True:
            kept.append(field_line)
        elif verdict is not False:
            return verdict
    if head.chunked and head.length is not None:
        return _BAD_FRAMING
    _apply_connection(head)
    head.forward = join_block(head.kept)
    return head


def _apply_connection(head: ResponseHead) -> None:
    options = frozenset(head.nominated)
    # RFC 9112 §9.3: HTTP/1.1 persists unless it says close, HTTP/1.0 only if it says keep-alive.
    head.close = b"close" in options or (head.old and b"keep-alive" not in options)
    doomed = _NAMES.nominated(options)
    if doomed:
        head.kept = without(head.kept, doomed)
