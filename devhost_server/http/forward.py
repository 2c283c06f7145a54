"""The heads that are sent: what a request becomes on its way to a target, and a response on its way to the client.

Pure functions over what was received; nothing received is changed. End-to-end lines pass as the bytes that came, in
their order; what the gateway vouches for is added behind them.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from devhost_server.http.fields import tokens
from devhost_server.http.request_head import RequestFields
from devhost_server.http.response_head import ResponseHead

# How often the name of any devhost may stand in Via before a request counts as looping: chains of gateways are real,
# but short. Our own instance may not stand there once.
_HOPS_MAX: Final = 8

# A dot segment as any server may see one: behind a backslash, or with parameters (RFC 3986 §3.3).
_CLIMBS: Final = re.compile(rb"[/\\]\.\.?(?:[/\\;]|\Z)")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """Who is at the other end of a client connection; `trusted` if its forwarded fields are believed.

    Two are the same only if they are one object, which makes looking up what a peer has sent cheap.
    """

    address: bytes
    trusted: bool
    # The added lines for a peer that is not trusted, up to where the host and the request id follow.
    forwarded: bytes
    port: bytes


def make_peer(address: str, port: int, trusted: tuple[Network, ...]) -> Peer:
    """Describe the peer at `address` ("" for a unix socket) that connected to our `port`.

    IPv4-mapped IPv6 addresses count as IPv4. A unix socket is trusted when anything on this machine is: only local
    processes reach it.
    """
    text = address.partition("%")[0]
    if not text:
        believed = any(ipaddress.ip_address("127.0.0.1") in network for network in trusted if network.version == 4)
        text = "127.0.0.1"
    else:
        parsed = _unmapped(text)
        text = str(parsed)
        believed = any(parsed in network for network in trusted if network.version == parsed.version)
    name = text.encode()
    port_text = b"%d" % port
    forwarded = (
        b"\r\nX-Forwarded-For: " + name + b"\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Port: " + port_text
        + b"\r\nX-Forwarded-Host: "
    )  # fmt: skip
    return Peer(name, believed, forwarded, port_text)


def _unmapped(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    parsed = ipaddress.ip_address(text)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped if mapped is not None else parsed


def client_address(peer: Peer, fields: RequestFields, trusted: tuple[Network, ...]) -> bytes:
    """Give the address a request came from: the right-most one in X-Forwarded-For that is not a trusted proxy's."""
    if not peer.trusted or fields.forwarded_for is None:
        return peer.address
    found = peer.address
    for part in reversed(fields.forwarded_for.split(b",")):
        try:
            text = part.strip(b" \t").decode("ascii")
            parsed = _unmapped(text)
        except ValueError:
            break  # "unknown" or an obfuscated identifier (RFC 7239 §6): the last address we could read stands
        if "%" in text:
            break  # a zone may be any text, and means nothing on another machine
        found = str(parsed).encode()
        if not any(parsed in network for network in trusted if network.version == parsed.version):
            break
    return found


def loops(via: bytes, instance: bytes) -> bool:
    """Whether a Via value says that a request has been through this gateway, or through too many of its kind."""
    if instance in via:
        return True
    return sum(b"devhost" in hop for hop in tokens(via)) >= _HOPS_MAX


def rewrite(target: bytes, prefix: bytes, base: bytes) -> bytes | None:
    """Give the request target for an upstream: `prefix` cut off, `base` put before it.

    Without either the bytes stay untouched. With one, a path that dot segments or escapes could lead out of the
    prefix or the base has no safe reading, and None is given.
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
        path = path[len(cut) :] or b"/"
    return base + path + mark + query


def around_request_id(
    fields: RequestFields, peer: Peer, instance: bytes, *, old: bool, host: bytes, host_line: bytes | None
) -> tuple[bytes, bytes]:
    """Give the head of the request to a target, less beginning and end: what is before the request id, and behind it.

    `host` is the host asked for; `host_line` replaces the client's Host line if it is not None. `instance` names this
    gateway in Via, which is how a loop is noticed. Requests with the same fields on one connection share both parts.
    """
    block = fields.forward if host_line is None else fields.forward_with(host_line)
    forwarded = _forwarded_lines(fields, peer, host) if peer.trusted else peer.forwarded + host
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
) -> bytes:
    """Build the head of the request to a target; see `around_request_id`.

    `hop` are the lines of our own hop, empty line included.
    """
    before, behind = around_request_id(fields, peer, instance, old=old, host=host, host_line=host_line)
    return b"".join((method, b" ", target, before, request_id, behind, hop))


def _forwarded_lines(fields: RequestFields, peer: Peer, host: bytes) -> bytes:
    """Give the forwarded lines for a trusted peer: its list with its own address behind it, its other values kept."""
    addresses = peer.address if fields.forwarded_for is None else fields.forwarded_for + b", " + peer.address
    return b"\r\nX-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Port: %b\r\nX-Forwarded-Host: %b" % (
        addresses,
        fields.forwarded_proto or b"http",
        fields.forwarded_port or peer.port,
        fields.forwarded_host or host,
    )


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
