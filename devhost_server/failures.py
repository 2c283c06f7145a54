"""The ways an exchange can fail: one table, read by replies, retries, the access log, metrics and pages.

A failure is a row (`Failure`); one occurrence of it, with the sentence that tells what happened, is a `Fault`.
Faults are values: they are returned and posted, never raised, because most of them are met inside parser callbacks
where an exception would tear down the wrong connection.

The flags are those of the contract; the error names are registered in RFC 9209 §2.3.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final


class Blame(Enum):
    """Whose doing a failure is."""

    CLIENT = "client"
    GATEWAY = "gateway"
    UPSTREAM = "upstream"


class Retry(Enum):
    """What may be tried again after a failure."""

    NEVER = "never"
    SAFE = "safe"  # nothing was sent: any request may go to another target
    REPLAY = "replay"  # something may have been executed: only idempotent requests whose body is still at hand


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """One row of the table: what is logged, answered, blamed and retried."""

    flag: str
    status: int
    error: str
    blame: Blame
    title: str
    retry: Retry = Retry.NEVER
    retry_after: int | None = None  # seconds, sent as Retry-After
    advice: str = ""  # the key of what the error page advises, where the error and the flag do not say enough

    @property
    def ends_connection(self) -> bool:
        """Whether the client's connection ends with it: what was sent on it can no longer be told apart."""
        return self.flag in _UNREADABLE

    def __call__(self, detail: str) -> "Fault":
        """Make one occurrence of this failure."""
        return Fault(self, detail)


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """One occurrence of a failure; `detail` is a sentence for the person who meets it, free of credentials."""

    failure: Failure
    detail: str
    allow: str | None = field(default=None)  # the Allow field of a 405
    advice: str = ""  # the key of what the error page advises, if this occurrence has its own


# Flags of failures after which nothing on the client's connection can be told apart any more.
_UNREADABLE: Final = frozenset(("BR", "RT", "TL"))

_C, _G, _U = Blame.CLIENT, Blame.GATEWAY, Blame.UPSTREAM

BAD_REQUEST: Final = Failure("BR", 400, "http_request_error", _C, "The request is malformed or ambiguous")
BAD_VERSION: Final = Failure("BR", 505, "http_request_error", _C, "The HTTP version is not supported")
BAD_CODING: Final = Failure("BR", 501, "http_request_error", _C, "The transfer coding is not supported")
BAD_EXPECTATION: Final = Failure("BR", 417, "http_request_error", _C, "The expectation cannot be met")
METHOD_REFUSED: Final = Failure("BR", 405, "http_request_denied", _C, "The method is not allowed here")
BAD_HOST: Final = BAD_REQUEST("The Host is not a name or an address, with a port from 0 to 65535 at most.")
NO_ROUTE: Final = Failure("NR", 404, "destination_not_found", _C, "No route answers this address")
HEAD_TIMEOUT: Final = Failure("RT", 408, "http_request_error", _C, "The request head took too long")
BODY_TIMEOUT: Final = Failure("RT", 408, "http_request_error", _C, "The request body took too long")
BODY_TOO_LARGE: Final = Failure("TL", 413, "http_request_denied", _C, "The request body is too large")
TARGET_TOO_LONG: Final = Failure("TL", 414, "http_request_denied", _C, "The request target is too long")
HEAD_TOO_LARGE: Final = Failure("TL", 431, "http_request_denied", _C, "The request head is too large")
LOOP: Final = Failure("LO", 508, "proxy_loop_detected", _G, "The request came back to this gateway")
CLIENT_GONE: Final = Failure("DC", 499, "connection_terminated", _C, "The client left")
CLIENT_STALLED: Final = Failure("DC", 499, "connection_write_timeout", _C, "The client stopped reading")

DNS_FAILED: Final = Failure("UF", 502, "dns_error", _U, "The target's name does not resolve", Retry.SAFE)
CONNECT_REFUSED: Final = Failure("UF", 502, "connection_refused", _U, "The target refuses connections", Retry.SAFE)
CONNECT_FAILED: Final = Failure(
    "UF", 502, "destination_ip_unroutable", _U, "The target cannot be connected to", Retry.SAFE
)
CONNECT_TIMEOUT: Final = Failure(
    "UT", 504, "connection_timeout", _U, "Connecting to the target took too long", Retry.SAFE
)
CONNECT_CLOSED: Final = Failure(
    "UC", 502, "connection_terminated", _U, "The target closes connections as soon as they are made", Retry.SAFE
)
TLS_FAILED: Final = Failure("UF", 502, "tls_protocol_error", _U, "The TLS handshake with the target failed", Retry.SAFE)
UPSTREAM_RESET: Final = Failure(
    "UC", 502, "connection_terminated", _U, "The target closed the connection without an answer", Retry.REPLAY
)
UPSTREAM_INCOMPLETE: Final = Failure("UC", 502, "http_response_incomplete", _U, "The target cut its answer short")
UPSTREAM_PROTOCOL: Final = Failure("UP", 502, "http_protocol_error", _U, "The target's answer is not valid HTTP")
UPSTREAM_HEAD_SIZE: Final = Failure(
    "UP", 502, "http_response_header_section_size", _U, "The target's answer has too large a head"
)
UPSTREAM_CODING: Final = Failure(
    "UP", 502, "http_response_transfer_coding", _U, "The target's answer has a transfer coding that is not supported"
)
UPGRADE_FAILED: Final = Failure("UP", 502, "http_upgrade_failed", _U, "The target answered the upgrade wrongly")
RESPONSE_TIMEOUT: Final = Failure("UT", 504, "http_response_timeout", _U, "The target did not answer in time")
READ_TIMEOUT: Final = Failure("UT", 504, "connection_read_timeout", _U, "The target stopped sending")
NO_TARGET: Final = Failure("UH", 503, "destination_unavailable", _U, "No target can be used", retry_after=1)
POOL_FULL: Final = Failure(
    "UO", 503, "connection_limit_reached", _U, "Every connection to the target is taken", retry_after=1
)
GATEWAY_FULL: Final = Failure(
    "UO",
    503,
    "connection_limit_reached",
    _G,
    "The gateway has too many connections",
    retry_after=1,
    advice="gateway full",
)
CLIENT_FULL: Final = Failure(
    "UO",
    503,
    "connection_limit_reached",
    _C,
    "This client has too much open at once",
    retry_after=1,
    advice="client full",
)
BODIES_FULL: Final = Failure(
    "UO",
    503,
    "http_request_denied",
    _G,
    "The gateway keeps as many request bodies as it may",
    retry_after=1,
    advice="bodies full",
)
OUT_OF_PORTS: Final = Failure(
    "UO",
    503,
    "connection_limit_reached",
    _G,
    "The gateway has nothing left to connect with",
    retry_after=1,
    advice="out of ports",
)
DRAINING: Final = Failure("DR", 503, "destination_unavailable", _G, "The gateway is stopping", retry_after=1)
INTERNAL: Final = Failure("IE", 500, "proxy_internal_error", _G, "The gateway failed on this request")

# The flags in the order of their cells on the scoreboard: append only.
FLAGS: Final = ("BR", "NR", "RT", "TL", "LO", "RL", "DC", "UF", "UC", "UP", "UH", "UO", "DR", "UT", "IE")
