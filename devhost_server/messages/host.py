"""The value of a Host header: a name or an address, and perhaps a port."""

import ipaddress
import re
from typing import Final

# RFC 9110 §7.2 with RFC 3986 §3.2.2: a registered name or IPv4 address, or a bracketed IPv6 address, and a port
# that may be empty. Percent-encoded and non-ASCII names are refused: clients send punycode.
_HOST: Final = re.compile(rb"(?:([A-Za-z0-9._~!$&'()*+,;=-]{1,255})|(\[[0-9A-Fa-f:.]{2,45}\]))(?::([0-9]{0,5}))?")


def parse_host(value: bytes) -> tuple[bytes, bytes] | None:
    """Split a Host value into (name, port), the name lower-case and without one trailing dot; None if malformed.

    The name keeps its brackets when it is an IPv6 address. An empty port is allowed (RFC 3986 §3.2.3) and given as b"".
    """
    found = _HOST.fullmatch(value)
    if found is None:
        return None
    name, literal, port = found.groups()
    if port and int(port) > 65535:
        return None
    if literal is not None:
        return (literal.lower(), port or b"") if _is_ipv6(literal[1:-1]) else None
    name = name.lower()
    return (name[:-1] if name.endswith(b".") and len(name) > 1 else name), port or b""


def _is_ipv6(text: bytes) -> bool:
    try:
        ipaddress.IPv6Address(text.decode("ascii"))
    except ValueError:
        return False
    return b"%" not in text  # a zone means nothing on another machine
