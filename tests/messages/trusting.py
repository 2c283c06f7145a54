"""Peers for tests of what is believed: a stranger, and a proxy with its network."""

import ipaddress

from devhost_server.messages.trust import Trust

LISTED = frozenset((b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix"))
TRUST = Trust((ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")), LISTED)
STRANGER = TRUST.peer("203.0.113.9")
PROXY = TRUST.peer("10.0.0.1")
