"""Answers that no target gave: refusals, which say why, and what a route answers from the configuration."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from devhost_server import secrecy
from devhost_server.exchange import Exchange
from devhost_server.failures import Blame, Fault
from devhost_server.messages import pages, replies
from devhost_server.messages.replies import Reply
from devhost_server.messages.request_head import ALLOWED

if TYPE_CHECKING:
    from devhost_server.messages.options import FixedAnswer

# As much of a target is told in a sentence.
_TARGET_BYTES: Final = 200


# RFC 9110 has no say in these: browsers are not to guess what a body is, nor to run or load what a client or an
# upstream might have put into a page.
_NOSNIFF: Final = (b"X-Content-Type-Options", b"nosniff")
_POLICY: Final = (b"Content-Security-Policy", pages.POLICY.encode())


def refusal(x: Exchange, fault: Fault, *, instance: bytes, failing_since: int, details: bool = True) -> Reply:
    """Return the answer to an exchange that failed.

    `failing_since` is since when the target fails, in microseconds of Unix time, 0 for not known. Without `details`,
    nothing is said of what is behind the gateway.
    """
    failure = fault.failure
    accept = x.fields.get(b"accept") if x.fields is not None else None
    facts = _facts(x, fault, instance, failing_since) if details else _plain_facts(x, fault)
    content_type, body = pages.render(facts, accept)
    # RFC 9209 §2.1.1: the error may be left out. Of what a client did wrong it tells nobody anything new.
    error = failure.error if details or failure.blame is Blame.CLIENT else None
    fields = [
        (b"Content-Type", content_type),
        (b"Cache-Control", b"no-store"),
        _NOSNIFF,
        (b"X-Request-ID", x.request_id),
        (b"Proxy-Status", replies.proxy_status(error)),
    ]
    if content_type == pages.HTML:
        fields.append(_POLICY)
    if failure.retry_after is not None:
        fields.append((b"Retry-After", b"%d" % failure.retry_after))
    if fault.allow is not None:
        fields.append((b"Allow", fault.allow.encode()))
    return Reply(failure.status, fields, body)


def allowed(x: Exchange) -> Reply:
    """Return the gateway's own answer to OPTIONS: what it takes; a route's application may take less."""
    return Reply(200, [(b"Allow", ALLOWED.encode()), (b"X-Request-ID", x.request_id)])


def redirect(x: Exchange, status: int, location: bytes) -> Reply:
    """Return the answer that sends the client elsewhere."""
    return Reply(status, [(b"Location", location), _NOSNIFF, (b"X-Request-ID", x.request_id)])


def configured(x: Exchange, respond: "FixedAnswer") -> Reply:
    """Return the answer that the configuration gives."""
    body = respond.body.encode()
    fields = [(name.encode(), value.encode("latin-1")) for name, value in respond.headers.items()]
    if body:
        fields.append((b"Content-Type", respond.content_type.encode("latin-1")))
    if "x-content-type-options" not in respond.headers:
        fields.append(_NOSNIFF)
    fields.append((b"X-Request-ID", x.request_id))
    return Reply(respond.status, fields, body)


def host_text(x: Exchange) -> str:
    """Return the host asked for, for people; "" if there was none."""
    return x.host.decode("utf-8", "surrogateescape")


def target_text(x: Exchange) -> str:
    """Return the target asked for, for people: its beginning, without secrets."""
    raw = x.target_path[:_TARGET_BYTES]
    return secrecy.without_secrets(raw.decode("latin-1"), cut=len(raw) < len(x.target_path))


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
        tried=x.tried,
        since=since,
        instance=instance.decode(),
        advice=fault.advice or failure.advice,
    )


def _plain_facts(x: Exchange, fault: Fault) -> pages.Facts:
    """Return what a stranger may know: of its own mistakes what they were, of all else only that it failed."""
    failure = fault.failure
    title, detail = failure.title, fault.detail
    if failure.blame is not Blame.CLIENT:
        title, detail = pages.neutral(failure.status)
    return pages.Facts(
        status=failure.status,
        reason=replies.reason(failure.status),
        flag=failure.flag,
        error="",
        title=title,
        detail=detail,
        request_id=x.request_id.decode(),
        method="",
        host=None,
        target="",
        route=None,
        owner=None,
        upstream=None,
        target_addr=None,
        tried=(),
        since=None,
        instance="",
        plain=True,
    )
