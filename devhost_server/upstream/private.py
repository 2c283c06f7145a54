"""The connections to targets that carry one client's authentication.

NTLM and Negotiate authenticate a connection instead of a request (RFC 4559 §6). From the first challenge or credentials
on, the connection to the target belongs to the connection of the client: its following requests to that target go over
it, nobody else's do, and it ends with it.
"""

from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """What can be owned."""

    def destroy(self) -> None:
        """Close at once."""


C = TypeVar("C", bound=Closable)
P = TypeVar("P")


class PrivateConnections(Generic[P, C]):
    """What one client connection owns: at most one connection to each pool, while it carries no request."""

    __slots__ = ("_closed", "_idle")

    def __init__(self) -> None:
        self._idle: dict[P, C] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._idle)

    def keep(self, pool: P, connection: C) -> bool:
        """Keep a connection of `pool` for the client's next request; False if the client is gone."""
        if self._closed:
            return False
        former = self._idle.get(pool)
        self._idle[pool] = connection
        if former is not None and former is not connection:
            former.destroy()
        return True

    def __contains__(self, pool: P) -> bool:
        return pool in self._idle

    def take(self, pool: P) -> C | None:
        """Take out the connection of a pool, if there is one."""
        return self._idle.pop(pool, None)

    def forget(self, pool: P, connection: C) -> None:
        """Note that a connection is closed."""
        if self._idle.get(pool) is connection:
            del self._idle[pool]

    def close(self) -> None:
        """Close all of them: the client is gone."""
        self._closed = True
        for connection in tuple(self._idle.values()):
            connection.destroy()
