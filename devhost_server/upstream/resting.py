"""Connections that rest before they are used again.

An answer to HEAD, a 204, a 304 and an answer of length 0 end with their heads; one in chunks may have only the last.
A server or an application that writes a body nevertheless does so a moment later, and whoever is next on the connection
would be answered with it. Such a connection is read from for a while first; what comes then destroys it. The one that
has rested longest is used first, and only if no other connection is idle.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from devhost_server.upstream.http1 import ServerConnection

# A thread that has sent a head and is about to send a body may wait for the interpreter's lock in between: 5 ms for
# each other thread, and longer on a busy machine, where 10 ms were not enough in two of a hundred cases.
REST_SECONDS: Final = 0.05
# A server that takes longer than that for its heads may take as long for what is behind them, up to this.
_LONGEST_SECONDS: Final = 1.0


class Resting:
    """The resting connections of one target, in the order they came. The clock is passed in, in seconds."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: dict[ServerConnection, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def add(self, connection: "ServerConnection", now: float) -> None:
        """Add a connection, to rest at least as long as its last answer took."""
        self._until[connection] = now + min(max(REST_SECONDS, connection.head_seconds), _LONGEST_SECONDS)

    def take(self, now: float) -> "ServerConnection | None":
        """Take out the connection that came first, if it has rested long enough."""
        for connection, until in self._until.items():
            if until > now:
                return None
            del self._until[connection]
            return connection
        return None

    def take_first(self) -> "ServerConnection | None":
        """Take out the connection that came first, however long it has rested: it can only be closed."""
        for connection in self._until:
            del self._until[connection]
            return connection
        return None

    def forget(self, connection: "ServerConnection") -> None:
        """Note that a connection is closed."""
        self._until.pop(connection, None)
