"""Answers that no target gave: refusals, which say why, and what a route answers from the configuration."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from devhost_server import secrecy
from devhost_server.exchange import Exchange
from devhost_server.failures import Fault
from devhost_server.http import pages, replies

if TYPE_CHECKING:
    from devhost_server.http.options import FixedAnswer

# As much of a target is told in a sentence.
_TARGET_BYTES: Final = 200


def refusal(x: Exchange, fault: Fault, *, instance: bytes, failing_since: int, hop: bytes) -> bytes:
    """Build the answer to an exchange that failed, and count its body.

    `failing_since` is since when the target fails, in microseconds of Unix time, 0 for not known; `hop` holds the lines
    of the connection.
    """
    failure = fault.failure
    accept = x.fields.get(b"accept") if x.fields is not None else None
    content_type, body = pages.render(_facts(x, fault, instance, failing_since), accept)
    fields = [
        (b"Content-Type", content_type),
        (b"Cache-Control", b"no-store"),
        (b"X-Request-ID", x.request_id),
        (b"Proxy-Status", replies.proxy_status(failure.error)),
    ]
    if failure.retry_after is not None:
        fields.append((b"Retry-After", b"%d" % failure.retry_after))
    if fault.allow is not None:
        fields.append((b"Allow", fault.allow.encode()))
    return _build(x, failure.status, fields, body, hop)


def configured(x: Exchange, respond: "FixedAnswer", hop: bytes) -> bytes:
    """Build the answer that the configuration gives, and count its body."""
    body = respond.body.encode()
    fields = [(name.encode(), value.encode("latin-1")) for name, value in respond.headers.items()]
    if body:
        fields.append((b"Content-Type", respond.content_type.encode("latin-1")))
    fields.append((b"X-Request-ID", x.request_id))
    return _build(x, respond.status, fields, body, hop)


def host_text(x: Exchange) -> str:
    """Give the host asked for, for people; "" if there was none."""
    return x.host.decode("utf-8", "surrogateescape")


def target_text(x: Exchange) -> str:
    """Return the target asked for, for people: its beginning, without secrets."""
    raw = x.target_path[:_TARGET_BYTES]
    return secrecy.without_secrets(raw.decode("latin-1"), cut=len(raw) < len(x.target_path))


def _build(x: Exchange, status: int, fields: list[tuple[bytes, bytes]], body: bytes, hop: bytes) -> bytes:
    with_body = x.method != b"HEAD"
    x.bytes_out = len(body) if with_body else 0
    return replies.build(status, fields, body, with_body=with_body, hop=hop)


def _facts(x: Exchange, fault: Fault, instance: bytes, failing_since: int) -> pages.Facts:
    failure, route, target = fault.failure, x.route, x.target
    since = datetime.fromtimestamp(failing_since / 1e6, UTC).isoformat(timespec="seconds") if failing_since else None
    return pages.Facts(
        status=failure.status,
        reason=replies.reason(failure.status),
        flag=failure.flag,
        error=failure.error,
        title=failure.title,
        detail=fault.detail,
        request_id=x.request_id.decode(),
        method=x.method.decode("latin-1"),
        host=host_text(x) or None,
        target=x.target_path.decode("utf-8", "surrogateescape"),
        route=None if route is None else route.name,
        owner=None if route is None else route.owner,
        upstream=None if route is None or route.upstream is None else route.upstream.name,
        target_addr=None if target is None else target.address,
        tried=tuple(x.tried),
        since=since,
        instance=instance.decode(),
    )
