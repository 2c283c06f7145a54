"""The heads that are sent: what a request becomes on its way to a target, and a response on its way to the client.

Pure functions over what was received; nothing received is changed. End-to-end lines pass as the bytes that came, in
their order; what the gateway vouches for is added behind them.
"""

import re
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from devhost_server.messages.fields import tokens
from devhost_server.messages.request_head import RequestFields
from devhost_server.messages.response_head import ResponseHead
from devhost_server.messages.trust import Peer, identity_lines

# How often the name of any devhost may stand in Via before a request counts as looping: chains of gateways are real,
# but short. Our own instance may not stand there once.
_HOPS_MAX: Final = 8

_MAX_FORWARDS: Final = re.compile(rb"(\r\nmax-forwards:)[^\r]*", re.IGNORECASE)
_HOPS_DIGITS: Final = 9

# A dot segment as any server may see one: behind a backslash, or with parameters (RFC 3986 §3.3).
_CLIMBS: Final = re.compile(rb"[/\\]\.\.?(?:[/\\;]|\Z)")

# What remains of a path when its prefix is cut off must not begin as the name of another host would, //evil.test, in
# the eyes of an app that decodes it or of a browser that is redirected there: browsers take a backslash for a slash
# and leave tabs and line breaks out (WHATWG URL, basic URL parser).
_SLASHES: Final = re.compile(rb"(?:(?:%0[9AaDd])*(?:[/\\]|%2[Ff]|%5[Cc]))+")


# RFC 3986 §2: everything that may stand in a reference. The rest is escaped: field values are ASCII for most readers.
_REFERENCE_SAFE: Final = "%:/?#[]@!$&'()*+,;=-._~"


def loops(via: bytes, instance: bytes) -> bool:
    """Whether a Via value says that a request has been through this gateway, or through too many of its kind."""
    if instance in via:
        return True
    return sum(b"devhost" in hop for hop in tokens(via)) >= _HOPS_MAX


def rewrite(target: bytes, prefix: bytes, base: bytes) -> bytes | None:
    """Return the request target for an upstream: `prefix` cut off, `base` put before it.

    Without either the bytes stay untouched. With one, a path that dot segments or escapes could lead out of the
    prefix or the base has no safe reading, and None is given. What remains behind a prefix begins with one slash.
    """
    if not (prefix or base) or target == b"*":
        return target
    path, mark, query = target.partition(b"?")
    if _CLIMBS.search(unquote_to_bytes(path)):
        return None
    if prefix:
        # Compared decoded, as routes are; a segment of the prefix is a segment of the path.
        segments = path.split(b"/", prefix.count(b"/") + 1)
        cut = b"/".join(segments[: prefix.count(b"/") + 1])
        if unquote_to_bytes(cut) != prefix:
            return None
        path = _SLASHES.sub(b"/", path[len(cut) :], 1) if len(path) > len(cut) else b"/"
    return base + path + mark + query


def with_slash(target: bytes) -> bytes:
    """Return the reference, relative to a target without a slash at its end, that has one.

    A relative one is right behind other prefixes too, which somebody in front of us may have cut off. The dot keeps a
    segment with a colon from being read as a scheme (RFC 3986 §4.2).
    """
    path, mark, query = target.partition(b"?")
    reference = b"./" + path.rpartition(b"/")[2] + b"/" + mark + query
    return quote(reference, safe=_REFERENCE_SAFE).encode()


def around_request_id(
    fields: RequestFields, peer: Peer, instance: bytes, *, old: bool, host: bytes, host_line: bytes | None
) -> tuple[bytes, bytes]:
    """Return the head of the request to a target, less beginning and end: what is before the request id, and behind it.

    `host` is the host asked for; `host_line` replaces the client's Host line if it is not None. `instance` names this
    gateway in Via, which is how a loop is noticed. Requests with the same fields on one connection share both parts.
    """
    block = fields.forward if host_line is None else fields.forward_with(host_line)
    forwarded = _forwarded_lines(fields, peer, host) if peer.trusted else peer.forwarded + _host_lines(host, b"http")
    via = b"\r\nVia: 1.0 devhost (" if old else b"\r\nVia: 1.1 devhost ("
    return b" HTTP/1.1" + block + forwarded + b"\r\nX-Request-ID: ", via + instance + b")"


def request_head(
    method: bytes,
    target: bytes,
    fields: RequestFields,
    *,
    old: bool,
    host: bytes,
    host_line: bytes | None,
    peer: Peer,
    request_id: bytes,
    instance: bytes,
    hop: bytes,
    prefix: bytes = b"",
) -> bytes:
    """Build the head of the request to a target; see `around_request_id`.

    `prefix` is the line of `prefix_line`; `hop` are the lines of our own hop, empty line included.
    """
    before, behind = around_request_id(fields, peer, instance, old=old, host=host, host_line=host_line)
    return b"".join((method, b" ", target, before, request_id, prefix, behind, hop))


def hops_left(value: bytes) -> int | None:
    """Return what Max-Forwards says (RFC 9110 §7.6.2: digits), None if it says nothing that can be counted."""
    return int(value) if value.isdigit() and len(value) <= _HOPS_DIGITS else None


def with_one_hop_less(head: bytes, value: bytes) -> bytes:
    """Return the head of a request whose Max-Forwards was `value`, which is a number above 0."""
    return _MAX_FORWARDS.sub(b"\\g<1> %d" % (int(value) - 1), head, count=1)


def prefix_line(theirs: bytes, ours: bytes) -> bytes:
    """Return the X-Forwarded-Prefix line: the prefix that a trusted peer cut off, then the one that we did."""
    return b"\r\nX-Forwarded-Prefix: " + theirs + ours


def _forwarded_lines(fields: RequestFields, peer: Peer, host: bytes) -> bytes:
    """Return the forwarded lines for a trusted peer: its list with its address behind it, and what it may say."""
    addresses = peer.address if fields.forwarded_for is None else fields.forwarded_for + b", " + peer.address
    scheme = fields.forwarded_proto or b"http"
    before = b"\r\nX-Forwarded-For: " + addresses + b"\r\nX-Forwarded-Proto: " + scheme
    behind = _host_lines(fields.forwarded_host or host, scheme, fields.forwarded_port)
    return before + identity_lines(fields.client_address, scheme) + behind


def _host_lines(host: bytes, scheme: bytes, port: bytes | None = None) -> bytes:
    """Return the end of Forwarded, X-Forwarded-Host, and X-Forwarded-Port.

    The port is the one that the client used: the host's, or else the scheme's. Ours may be behind another.
    """
    if port is None:
        port = host.rpartition(b":")[2] if b":" in host else b""
        if not port.isdigit():  # none, or the end of an IPv6 address
            port = b"443" if scheme == b"https" or scheme == b"wss" else b"80"  # noqa: PLR1714 -- speed
    return host + b'"\r\nX-Forwarded-Host: ' + host + b"\r\nX-Forwarded-Port: " + port


def response_head(head: ResponseHead, request_id: bytes, framing: bytes) -> bytes:
    """Build the head of a final response, empty line included; `framing` holds the lines of the client's hop."""
    if not head.before_id:
        # A target says the same for a second, and its connections share what was made of it.
        head.before_id = b"".join((b"HTTP/1.1 ", head.line, head.forward, b"\r\nX-Request-ID: "))
        head.behind_id = b"\r\nVia: 1.0 devhost" if head.old else b"\r\nVia: 1.1 devhost"
    return b"".join((head.before_id, request_id, head.behind_id, framing, b"\r\n\r\n"))


def informational_head(head: ResponseHead) -> bytes:
    """Build an interim response (RFC 9110 §15.2) as it is passed on."""
    return b"HTTP/1.1 %b%b\r\n\r\n" % (head.line, head.forward)
