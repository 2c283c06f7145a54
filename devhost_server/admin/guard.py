"""Who may use the admin listener. All plain decisions.

Where others can reach the listener, whoever asks needs a token; on this machine only whoever changes something. Two
ways remain in which a stranger's web page could use a browser against it, and both are closed here: a name of the
stranger's that resolves to the listener (DNS rebinding) by looking at Host, a form sent from another site (request
forgery) by looking at Sec-Fetch-Site and Origin.
"""

import hmac
import ipaddress
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Self

from devhost_server.messages.host import parse_host
from devhost_server.options import parse_bind

# As much of X-Devhost-Actor as is believed to be a name.
_ACTOR_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose token it is that a request carries; `owner` is None for `admin.token`, which is nobody's in particular."""

    owner: str | None


@dataclass(frozen=True, slots=True)
class Keys:
    """The tokens that open the listener, kept as digests: equally long, whatever the tokens are."""

    holders: tuple[tuple[bytes, Holder], ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, token: str | None, tokens: Mapping[str, str] = {}) -> Self:
        """Make them of `admin.token` and `admin.tokens`."""
        given = [*((None, token) for token in (token,) if token is not None), *tokens.items()]
        return cls(tuple((_digest(text), Holder(owner)) for owner, text in given))

    def __bool__(self) -> bool:
        return bool(self.holders)

    def holder(self, authorization: str | None) -> Holder | None:
        """Return whose token an Authorization value carries (RFC 6750 §2.1), None if it is nobody's.

        It takes the same time whichever it is: each is compared, in constant time.
        """
        scheme, _, credentials = (authorization or "").partition(" ")
        given = _digest(credentials.strip(" "))
        found = None
        for digest, holder in self.holders:
            if hmac.compare_digest(given, digest):
                found = holder
        return found if scheme.lower() == "bearer" else None


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def actor(holder: Holder | None, named: str | None, peer: str) -> str:
    """Return who has changed something: the owner of the token, else who X-Devhost-Actor says it is, else the peer."""
    if holder is not None and holder.owner is not None:
        return holder.owner
    name = (named or "").strip()
    return name if name.isprintable() and 0 < len(name) <= _ACTOR_LENGTH else peer


def is_loopback(listener: socket.socket) -> bool:
    """Return whether only this machine can reach a listener by TCP; False for a unix socket, which has no host name."""
    if listener.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    address: str = listener.getsockname()[0]
    return _is_loopback_address(address)


def _is_loopback_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def own_names(bind: str | None, hosts: Collection[str]) -> frozenset[str]:
    """Return the names that a listener on `bind` may be called by: `hosts`, and the name it was bound by."""
    host = parse_bind(bind).host if bind else ""
    return frozenset((*hosts, host)) - {""}


def host_allowed(values: Sequence[str], names: Collection[str], *, is_local: bool) -> bool:
    """Return whether every Host value of a request is something that the listener may be called.

    Addresses are: no page can make its own name one. So are `names` and, to whom it is local (on loopback or a unix
    socket), ``localhost`` and what ends in it (RFC 6761 §6.3). No Host at all is no browser, and allowed.
    """
    return all(_is_allowed(value, names, is_local) for value in values)


def _is_allowed(value: str, names: Collection[str], is_local: bool) -> bool:
    parsed = parse_host(value.encode("latin-1"))
    if parsed is None:
        return False
    name = parsed[0].decode("latin-1")
    if name in names or _is_address(name):
        return True
    return is_local and (name == "localhost" or name.endswith(".localhost"))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def is_local(server: Sequence[object] | None) -> bool:
    """Return whether a connection that came in at `server` (host and port, or a path) came from this machine."""
    return server is None or server[1] is None or _is_loopback_address(str(server[0]))


def from_another_site(fetch_site: str | None, origin: str | None, host: str | None) -> bool:
    """Return whether a browser says that a request was caused by a page of another origin.

    Sec-Fetch-Site is believed where it is sent, since scripts cannot set it; older browsers send Origin alone. Programs
    send neither.
    """
    if fetch_site is not None:
        return fetch_site not in {"same-origin", "none"}
    return origin is not None and origin.partition("://")[2] != host
