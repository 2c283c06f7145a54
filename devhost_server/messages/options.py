"""What a site decides about the client side of the wire, and the answers that a route can give without an upstream."""

from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from devhost_server.options import Count, FieldValue, HeaderFields, KeyedError, Options
from devhost_server.units import ByteRate, PositiveDuration, Size, quote

# The gateway frames messages itself: a configured copy of these would contradict what is really sent.
FRAMING_FIELDS: Final = frozenset(
    {"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
# RFC 9110 §15.3.5, §15.3.6, §15.4.5: these never carry content.
BODILESS: Final = frozenset({204, 205, 304})


class Limits(Options):
    """What a client may send and hold."""

    head: Annotated[Size, Field(ge=1024)] = Field(
        default=64 * 1024, description="Longest request head, from the first byte to the empty line; longer is 431."
    )
    headers: Annotated[Count, Field(ge=1, le=10_000)] = Field(
        default=128, description="Most header fields of one request; more is 431."
    )
    target: Annotated[Size, Field(ge=64)] = Field(
        default=16 * 1024, description="Longest request target (path and query); longer is 414."
    )
    body: Size | None = Field(default=None, description="Longest request body; longer is 413. `null` sets no limit.")
    connections: Annotated[Count, Field(ge=1, le=1_000_000)] = Field(
        default=10_000, description="Most client connections of one worker; more are answered with 503 and closed."
    )
    connections_per_client: Annotated[Count, Field(ge=1, le=1_000_000)] | None = Field(
        default=None,
        description="Most connections of one address (IPv6: one /64) to one worker, WebSockets included; more are "
        "answered with 503 and closed. Trusted proxies, which carry many clients, are not bounded by it.",
    )
    in_flight_per_client: Annotated[Count, Field(ge=1, le=1_000_000)] | None = Field(
        default=None,
        description="Most requests of one client address (IPv6: one /64) that one worker answers at once; more are "
        "503.",
    )


class ClientTimeouts(Options):
    """How long a client may take."""

    head: PositiveDuration = Field(
        default=10.0, description="From the first byte of a request to the end of its head; longer is 408."
    )
    body_idle: PositiveDuration = Field(
        default=30.0, description="Without a byte of an unfinished body; longer is 408."
    )
    body_rate: ByteRate | None = Field(
        default=240,
        description="How fast a body has to move, a request's and an answer's that the client is slow to take, after "
        "5 s of grace and while nobody else holds it up; slower is 408, or the end of the connection. `null`: any.",
    )
    body: PositiveDuration | None = Field(
        default=None,
        description="The whole request body, not counting what the target holds it up; longer is 408. `null`: any.",
    )
    keepalive: PositiveDuration = Field(
        default=75.0, description="Idle between two requests; then the connection ends."
    )
    write_idle: PositiveDuration = Field(
        default=60.0, description="Without the client taking a byte of a waiting response; then the connection ends."
    )


class FixedAnswer(Options):
    """An answer that the gateway gives by itself."""

    status: Annotated[Count, Field(ge=200, le=599)] = Field(default=200, description="Status code, 200 to 599.")
    body: str = Field(default="", description="Body, sent as UTF-8; none is allowed with 204, 205 and 304.")
    content_type: FieldValue = Field(default="text/plain; charset=utf-8", description="`Content-Type` of a body.")
    headers: HeaderFields = Field(
        default={}, description="Further header fields. Those that frame a message are the gateway's own."
    )

    @model_validator(mode="after")
    def _is_one_message(self) -> Self:
        if self.body and self.status in BODILESS:
            raise KeyedError("body", f"a {self.status} answer has no body: remove `body` or choose another status")
        if "content-type" in self.headers:
            raise KeyedError("headers", "`headers` has a content-type: write it as `content_type`")
        framing = sorted(FRAMING_FIELDS & self.headers.keys())
        if framing:
            raise KeyedError("headers", f"`headers` has {quote(framing[0])}, which the gateway sets itself: remove it")
        return self
