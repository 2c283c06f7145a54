"""The connections to targets that carry one client's authentication.

NTLM and Negotiate authenticate a connection instead of a request (RFC 4559 §6). From the first challenge or credentials
on, the connection to the target belongs to the connection of the client: its following requests to that target go over
it, nobody else's do, and it ends with it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devhost_server.http.server_connection import ServerConnection
    from devhost_server.upstream.target import Target


class PrivateConnections:
    """What one client connection owns: at most one connection to each target, while it carries no exchange."""

    __slots__ = ("_closed", "_idle")

    def __init__(self) -> None:
        self._idle: dict[Target, ServerConnection] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._idle)

    def keep(self, connection: "ServerConnection") -> bool:
        """Keep a connection for the client's next request; False if the client is gone."""
        if self._closed:
            return False
        former = self._idle.get(connection.target)
        self._idle[connection.target] = connection
        if former is not None and former is not connection:
            former.destroy()
        return True

    def choose(self, targets: "tuple[Target, ...]") -> "Target | None":
        """Return the one of these targets to which there is a connection, None if there is none."""
        for target in self._idle:
            if target in targets:
                return target
        return None

    def take(self, target: "Target") -> "ServerConnection | None":
        """Take out the connection to a target, if there is one that can still be used."""
        connection = self._idle.pop(target, None)
        return connection if connection is not None and target.take_back(connection) else None

    def forget(self, connection: "ServerConnection") -> None:
        """Note that a connection is closed."""
        if self._idle.get(connection.target) is connection:
            del self._idle[connection.target]

    def close(self) -> None:
        """Close all of them: the client is gone."""
        self._closed = True
        for connection in tuple(self._idle.values()):
            connection.destroy()
