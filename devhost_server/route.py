"""A route as a worker serves it: who answers, and how requests are changed on their way there."""

from typing import Final
from urllib.parse import quote

from devhost_server.messages.options import FixedAnswer
from devhost_server.messages.trust import Audience
from devhost_server.upstream.options import UpstreamTimeouts
from devhost_server.upstream.upstream import Upstream

# RFC 3986 §3.3: what may stand in a segment as it is, and the slash.
_PATH_SAFE: Final = "/:@!$&'()*+,;=-._~"


class Route:
    """A route as a worker serves it."""

    __slots__ = (
        "answers",
        "buffer_body",
        "cell",
        "code_cells",
        "details",
        "log_name",
        "log_upstream",
        "name",
        "owner",
        "path",
        "prefix",
        "prefix_line",
        "public_prefix",
        "respond",
        "slash",
        "timeouts",
        "trailers",
        "upgrades",
        "upstream",
    )

    def __init__(
        self,
        name: str,
        cell: int,
        *,
        owner: str | None = None,
        upstream: Upstream | None = None,
        respond: FixedAnswer | None = None,
        path: bytes = b"",
        strip_prefix: bool = False,
        slash: bool = False,
        details: Audience = Audience(),  # noqa: B008 -- immutable
        timeouts: UpstreamTimeouts | None = None,
        upgrades: frozenset[bytes] = frozenset(),
        trailers: bool = False,
    ) -> None:
        self.name = name
        self.cell = cell  # of its block on the scoreboard
        self.code_cells: dict[int, int] = {}
        self.owner = owner
        self.upstream = upstream
        self.buffer_body = 0 if upstream is None else upstream.buffer_body  # bytes; 0 sends chunks as they come
        self.respond = respond
        self.path = path  # in its normal form, without a slash at the end
        self.prefix = path if strip_prefix else b""  # what is cut off the path
        self.public_prefix = quote(self.prefix, safe=_PATH_SAFE).encode()  # as it is told to upstreams
        self.prefix_line = b"\r\nX-Forwarded-Prefix: " + self.public_prefix if self.prefix else b""
        self.slash = slash  # whether `path` itself is redirected
        self.answers = slash or respond is not None  # whether some of its requests go to no target
        self.details = details
        self.timeouts = timeouts  # instead of the upstream's
        self.upgrades = upgrades  # names of the protocols that may be offered to targets
        self.trailers = trailers  # whether those of requests are passed on
        self.log_name = b'"' + name.encode() + b'"'
        self.log_upstream = b"null" if upstream is None else b'"' + upstream.name.encode() + b'"'

    def __repr__(self) -> str:
        return f"<Route {self.name}>"
