"""What the upstream side knows of a request that it carries, whoever asks: a client's exchange, or a call of our own.

A pool and its connections see a request through `Caller` alone. So they import nothing of what is above them, and
whatever offers these few names can send a request: an HTTP/1 client's exchange, the httpx transport, a health check.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol

from devhost_server.messages.response_head import ResponseHead
from devhost_server.upstream.private import PrivateConnections


class Event:
    """What a caller can be told, besides a `Fault` or the connection that became free."""

    RESPONSE: Final = "response"  # the response head is there, with what came behind it
    FINISHED: Final = "finished"  # the response has ended as it should
    ENDED: Final = "ended"  # the tunnel has ended
    ENOUGH: Final = "enough"  # of the request body is there, or has been waited for
    PLACE: Final = "place"  # for an upload has become free
    WAITED: Final = "waited"  # long enough to look again


Owner = PrivateConnections[Any, Any]
"""Whose requests alone some connections may carry: a client that has authenticated them."""


class Caller(Protocol):
    """Who waits for a connection, and then for what comes on it.

    Everything here is called from within the event loop's callbacks: it must neither block nor raise.
    """

    method: bytes
    request_complete: bool  # its body is there as a whole
    connect_seconds: float  # how long the connection took that was made for it, 0.0 for one that was there

    @property
    def over(self) -> bool:
        """Whether nobody waits any more."""

    def post(self, event: object) -> None:
        """Tell what happened: an `Event`, a `Fault`, or the connection that is now the caller's."""

    def interim(self, head: ResponseHead) -> None:
        """Take a 1xx other than 101."""

    def answered(self, head: ResponseHead, pieces: Sequence[bytes], seconds: float, *, complete: bool) -> None:
        """Take the final head (or a 101), with what came of the body, `seconds` after the request's head was sent.

        `complete` says that this is all of it.
        """

    def content(self, pieces: Sequence[bytes]) -> None:
        """Take more of the body."""

    def pause_upload(self) -> None:
        """Send no more of the request until `resume_upload`."""

    def resume_upload(self) -> None:
        """Send on: the target has taken everything that was sent."""

    def owner(self) -> Owner | None:
        """Return who owns connections over which this caller authenticates; None keeps no such connection."""
