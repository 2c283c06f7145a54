"""How much each client has at once, by its address. Sans I/O.

A client with IPv6 has at least a /64 of addresses to choose from, so those count as one.
"""

import ipaddress


def client_key(address: bytes) -> bytes:
    """Return what is one client: an IPv4 address, or the /64 of an IPv6 address."""
    if b":" not in address:
        return address
    return ipaddress.IPv6Address(address.decode()).packed[:8]


class PerClient:
    """Counts for those clients that have something; `most` is how much each may have, None for no limit."""

    __slots__ = ("_counts", "most")

    def __init__(self) -> None:
        self.most: int | None = None
        self._counts: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def enter(self, address: bytes) -> bytes | None:
        """Count one more; return what to `leave` with, or None if the client has as much as it may."""
        key = client_key(address)
        count = self._counts.get(key, 0)
        if self.most is not None and count >= self.most:
            return None
        self._counts[key] = count + 1
        return key

    def leave(self, key: bytes) -> None:
        """Count one less, of what `enter` returned."""
        count = self._counts[key] - 1
        if count:
            self._counts[key] = count
        else:
            del self._counts[key]
