"""Idle connections to a target that belong to one client each, and which of them make room for somebody else."""

from typing import TYPE_CHECKING, Final

from devhost_server.messages.reuse import Reason

if TYPE_CHECKING:
    from devhost_server.upstream.http1 import ServerConnection

# For so long a client that has authenticated keeps its connection although somebody waits for it.
KEPT_SECONDS: Final = 5.0


class Owned:
    """The private connections of one target while they carry no exchange. The clock is passed in, in seconds."""

    __slots__ = ("_authenticated", "_challenged")

    def __init__(self) -> None:
        # In the order they became idle, with the time since when.
        self._challenged: dict[ServerConnection, float] = {}  # the client has been asked, and has not answered
        self._authenticated: dict[ServerConnection, float] = {}

    def __len__(self) -> int:
        return len(self._challenged) + len(self._authenticated)

    def add(self, connection: "ServerConnection", now: float) -> None:
        """Keep a connection until its client uses it again."""
        answered = connection.reasons & Reason.CREDENTIALS
        (self._authenticated if answered else self._challenged)[connection] = now

    def forget(self, connection: "ServerConnection") -> None:
        """Note that a connection is in use again, or closed."""
        self._challenged.pop(connection, None)
        self._authenticated.pop(connection, None)

    def take_spare(self, now: float) -> "ServerConnection | None":
        """Take out the connection that is missed least: a client that was only challenged can be challenged again."""
        for connection in self._challenged:
            del self._challenged[connection]
            return connection
        for connection, since in self._authenticated.items():
            if since + KEPT_SECONDS > now:
                return None
            del self._authenticated[connection]
            return connection
        return None

    def close(self) -> None:
        """Close all of them."""
        for connection in (*self._challenged, *self._authenticated):
            connection.destroy()
