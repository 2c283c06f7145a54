"""Answers that the gateway makes itself. They are values until the door writes them: see `Reply`."""

import time
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

# Reasons of the statuses that the standard library of this Python may name otherwise, or not at all.
_REASONS: Final = {413: "Content Too Large", 499: "Client Closed Request"}


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer of the gateway's own. The door adds what belongs to its connection, and the Date."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""


def reason(status: int) -> str:
    """Return the reason phrase of a status, "" if it has none."""
    if status in _REASONS:
        return _REASONS[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


@lru_cache
def proxy_status(error: str | None) -> bytes:
    """Return a Proxy-Status value (RFC 9209) for one of its error types, or for an error that is not told."""
    return b"devhost" if error is None else f"devhost; error={error}".encode()


def build(reply: Reply, *, with_body: bool, hop: bytes) -> bytes:
    """Return a reply as HTTP/1.1 writes it; `hop` holds the lines of the connection, each led by CRLF.

    Content-Length is that of the body even where it is not sent, as the answer to HEAD (RFC 9110 §8.6).
    """
    lines = [_status_line(reply.status), date_line()]
    lines += [name + b": " + value for name, value in reply.fields]
    if reply.status != 204:
        lines.append(b"Content-Length: %d" % len(reply.body))
    head = b"\r\n".join(lines) + hop + b"\r\n\r\n"
    return head + reply.body if with_body else head


def date_line() -> bytes:
    """Return the Date line (RFC 9110 §6.6.1) of this second."""
    return _date_line(int(time.time()))


# Kept, because refusals come by the thousand a second when they come, and that is when there is no time for them.
@lru_cache(64)
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {reason(status)}".encode()


@lru_cache(1)
def _date_line(second: int) -> bytes:
    return b"Date: " + formatdate(second, usegmt=True).encode()
