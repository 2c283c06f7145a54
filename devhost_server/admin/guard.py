"""Who may use the admin listener. All plain decisions.

Reads are open to whoever can connect. Two ways remain in which a stranger's web page could use the developer's browser
against a listener on loopback, and both are closed here: a name that resolves to 127.0.0.1 (DNS rebinding) by looking
at Host, a form sent from another site (request forgery) by looking at Sec-Fetch-Site and Origin.
"""

import hmac
import ipaddress
import socket
from collections.abc import Sequence

from devhost_server.options import parse_bind
from devhost_server.routing import parse_host


def is_loopback(listener: socket.socket) -> bool:
    """Tell whether only this machine can reach a listener by TCP; a unix socket is no matter of names, so False."""
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


def bind_host(bind: str | None) -> str | None:
    """Give the host of an `admin.bind`, None where it has none."""
    return parse_bind(bind).host if bind else None


def host_allowed(values: Sequence[str], own: str | None) -> bool:
    """Tell whether every Host value of a request to a loopback listener is a name that means this machine.

    Allowed are ``localhost`` and what ends in it (RFC 6761 §6.3), loopback addresses, and `own`, the host of the bind.
    No Host at all is no browser, and allowed.
    """
    return all(_is_this_machine(value, own) for value in values)


def _is_this_machine(value: str, own: str | None) -> bool:
    parsed = parse_host(value.encode("latin-1"))
    if parsed is None:
        return False
    name = parsed[0].decode("latin-1")
    return name in {"localhost", own} or name.endswith(".localhost") or _is_loopback_address(name)


def from_another_site(fetch_site: str | None, origin: str | None, host: str | None) -> bool:
    """Tell whether a browser says that a request was caused by a page of another origin.

    Sec-Fetch-Site is believed where it is sent, since scripts cannot set it; older browsers send Origin alone. Programs
    send neither.
    """
    if fetch_site is not None:
        return fetch_site not in {"same-origin", "none"}
    return origin is not None and origin.partition("://")[2] != host


def token_matches(authorization: str | None, token: str) -> bool:
    """Tell whether an Authorization value carries `token` (RFC 6750 §2.1), in constant time."""
    scheme, _, credentials = (authorization or "").partition(" ")
    given = credentials.strip(" ").encode("latin-1")
    return hmac.compare_digest(given, token.encode()) and scheme.lower() == "bearer"
