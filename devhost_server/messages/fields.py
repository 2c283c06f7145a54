"""Field sections: the byte rules that requests, responses and trailers share.

A *block* is what follows the first line of a head: each field line led by CRLF, without the empty line at the end.
Most lines of most heads are the same bytes as in the head before: what a line means is worked out once, when it is
first met, and remembered by the whole line.
"""

import re
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Final, Generic, TypeVar

from devhost_server.messages.trust import OWN_FAMILY, fold, is_statement

T = TypeVar("T")

CRLF: Final = b"\r\n"

# RFC 9110 §5.5: visible characters, obs-text, blank and tab. What is left of a line without these may not be there.
VALUE_BYTES: Final = bytes(byte for byte in range(256) if byte == 0x09 or (byte >= 0x20 and byte != 0x7F))
TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_STRAY: Final = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")
# A length of more digits than this does not fit 63 bits.
LENGTH_DIGITS: Final = 18
# Lines and names remembered per direction, and the longest that are: together about a megabyte, whatever clients
# invent. Past the bound everything is forgotten, and the few lines that matter are learnt again.
_REMEMBERED: Final = 2048
_REMEMBERED_LENGTH: Final = 256
_REMEMBERED_NAME: Final = 64

# RFC 9110 §7.6.1 and §11.7. `Proxy` is no field at all, but becomes $HTTP_PROXY in a CGI world (httpoxy).
HOP_BY_HOP: Final = frozenset(
    (b"keep-alive", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate", b"http2-settings", b"proxy")
)
# What is not kept in memory longer than it is needed.
_SECRET: Final = frozenset((b"authorization", b"cookie", b"set-cookie", b"x-api-key", b"proxy-authorization"))
# What is hardly ever said twice: remembering it would make room by forgetting what is.
_UNIQUE: Final = frozenset(
    (b"traceparent", b"tracestate", b"baggage", b"referer", b"x-request-id", b"x-correlation-id", b"if-none-match",
     b"if-modified-since", b"content-length", b"idempotency-key", b"x-b3-traceid", b"x-b3-spanid", b"location",
     b"etag", b"last-modified", b"x-csrf-token")
)  # fmt: skip
# The schemes that authenticate a connection (RFC 4559 §6, [MS-NTHT] §1.3), wherever a list of challenges names them.
_BINDING: Final = re.compile(rb"(?:\A|,)[\t ]*(?:NTLM|Negotiate)(?=[\t ,]|\Z)", re.IGNORECASE)
# End-to-end by nature: a Connection line may not take these away (RFC 9110 §7.6.1, last paragraph).
GUARDED: Final = frozenset(
    (b"authorization", b"cookie", b"set-cookie", b"content-type", b"content-encoding", b"content-range", b"range",
     b"cache-control", b"date", b"etag", b"location", b"vary", b"origin", b"close", b"keep-alive")
)  # fmt: skip


class Lines(dict[bytes, "bytes | tuple[T, bytes, bytes]"], Generic[T]):
    """What field lines of one direction mean, by the line as it came.

    A plain line means the bytes that are passed on (without blanks around the value). A line that the gateway acts on
    means its `take`, its value, and the bytes that would be passed on. `takes` is keyed by lower-case name (None:
    plain); `fallback` may give a take for a name that it does not hold; `malformed` takes what is no field line. A
    Connection line may take away what is not in `takes` or is `removable`.
    """

    __slots__ = ("_fallback", "_malformed", "_names", "_needed", "_takes")

    def __init__(
        self,
        takes: Mapping[bytes, T | None],
        malformed: T,
        fallback: Callable[[bytes], T | None] = lambda _: None,
        removable: frozenset[bytes] = frozenset(),
    ) -> None:
        super().__init__()
        self._needed = frozenset(takes) - removable
        self._takes = takes
        self._malformed = malformed
        self._fallback = fallback
        self._names: dict[bytes, tuple[T | None, bool]] = {}

    def __missing__(self, line: bytes) -> bytes | tuple[T, bytes, bytes]:
        """Work out what a line means, and remember it if lines of that name come again and are no secret."""
        name, colon, value = line.partition(b":")
        if not colon or line.translate(None, VALUE_BYTES):
            return self._malformed, line, line
        try:
            take, repeats = self._names[name]
        except KeyError:
            take, repeats = self._learn(name)
        bare = value.strip(b" \t")
        # RFC 9112 §5.1: blanks around a value are no part of it; two readers could take odd ones differently.
        passed_on = line if value == b" " + bare or value == bare else name + b": " + bare
        meaning = passed_on if take is None else (take, bare, passed_on)
        if repeats and len(line) <= _REMEMBERED_LENGTH:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[line] = meaning
        return meaning

    def _learn(self, spelling: bytes) -> tuple[T | None, bool]:
        """Classify a spelling of a name, also by whether its lines are worth remembering, and remember that."""
        if TOKEN.fullmatch(spelling) is None:
            return self._malformed, False
        name = spelling.lower()
        take = self._takes[name] if name in self._takes else self._fallback(name)
        known = take, name not in _SECRET and name not in _UNIQUE
        if len(spelling) > _REMEMBERED_NAME:
            return known
        if len(self._names) >= _REMEMBERED:
            self._names.clear()
        self._names[spelling] = known
        return known

    def nominated(self, options: Collection[bytes]) -> frozenset[bytes]:
        """Return the fields that these Connection options take away: those that mean nothing to the gateway itself."""
        return frozenset(options) - self._needed - GUARDED


def split_block(block: bytes) -> list[bytes]:
    """Split a block into its lines; a CR or LF that stands alone stays in its line and is noticed there."""
    lines = block.split(CRLF)
    del lines[0]
    return lines


def join_block(lines: list[bytes]) -> bytes:
    """Make a block of lines: each led by CRLF."""
    return CRLF + CRLF.join(lines) if lines else b""


def without(lines: list[bytes], names: Collection[bytes]) -> list[bytes]:
    """Return the lines whose lower-case name is not in `names`."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]


def tokens(value: bytes) -> tuple[bytes, ...]:
    """Split a comma-separated list into lower-case elements; empty ones are ignored (RFC 9110 §5.6.1)."""
    return _tokens(value) if len(value) <= _REMEMBERED_LENGTH else _tokens.__wrapped__(value)


@lru_cache(maxsize=128)  # half a megabyte at the very most: a tuple of blanks takes many times its text
def _tokens(value: bytes) -> tuple[bytes, ...]:
    return tuple(token for token in (part.strip(b" \t").lower() for part in value.split(b",")) if token)


def binds_connection(value: bytes) -> bool:
    """Whether credentials or a challenge are of a scheme that authenticates a connection instead of a request."""
    return _BINDING.search(value) is not None


def is_clean(data: bytes | bytearray, begin: int) -> bool:
    """Whether every control from `begin` on belongs to a CRLF, which may lack its LF at the end of the data."""
    left = data[begin:].translate(None, VALUE_BYTES)
    return not left or not (left.strip(CRLF) or _STRAY.search(data, begin))


def parse_length(value: bytes) -> int | None:
    """Return a Content-Length (RFC 9110 §8.6: digits only), or None if it is malformed or beyond 63 bits."""
    return int(value) if value.isdigit() and len(value) <= LENGTH_DIGITS else None


# RFC 9110 §6.5.1: what frames, routes, authenticates, or was already decided on, may not come behind the body.
_TRAILER_BARRED: Final = (
    HOP_BY_HOP
    | GUARDED
    | frozenset(
        (b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"te", b"trailer", b"expect",
         b"x-request-id", b"via", b"max-forwards", b"www-authenticate", b"age", b"expires",
         b"retry-after", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range")
    )
)  # fmt: skip


def filter_trailers(block: bytes) -> bytes | None:
    """Return the trailer lines of a block that may be passed on, as a block; None if the section is malformed."""
    kept = []
    for line in split_block(block):
        spelling, colon, _ = line.partition(b":")
        if not colon or TOKEN.fullmatch(spelling) is None or line.translate(None, VALUE_BYTES):
            return None
        name = fold(spelling)  # by any name that some server takes for one of these
        if name not in _TRAILER_BARRED and not is_statement(name) and not name.startswith(OWN_FAMILY):
            kept.append(line)
    return join_block(kept)
