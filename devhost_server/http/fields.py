"""Field sections: the byte rules that requests, responses and trailers share.

A *block* is what follows the first line of a head: each field line led by CRLF, without the empty line at the end.
A block is checked in one pass over its bytes; then each line's name decides what is done with it. Names are looked up
by the spelling that came, so that a name is checked and lowered once per process and not once per request.
"""

import re
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Final, Generic, TypeVar

T = TypeVar("T")

CRLF: Final = b"\r\n"

# RFC 9110 §5.5: visible characters, obs-text, blank and tab. What is left of a block without these are its CRLFs.
VALUE_BYTES: Final = bytes(byte for byte in range(256) if byte == 0x09 or (byte >= 0x20 and byte != 0x7F))
TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# A length of more digits than this does not fit 63 bits.
_LENGTH_DIGITS: Final = 18
# Spellings remembered per direction; the bound keeps a client that invents names from growing a worker.
_SPELLINGS: Final = 4096

# RFC 9110 §7.6.1 and §11.7. `Proxy` is no field at all, but becomes $HTTP_PROXY in a CGI world (httpoxy).
HOP_BY_HOP: Final = frozenset(
    (b"keep-alive", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate", b"http2-settings", b"proxy")
)
# End-to-end by nature: a Connection line may not take these away (RFC 9110 §7.6.1, last paragraph).
_GUARDED: Final = frozenset(
    (b"authorization", b"cookie", b"set-cookie", b"content-type", b"content-encoding", b"content-range", b"range",
     b"cache-control", b"date", b"etag", b"location", b"vary", b"origin", b"close", b"keep-alive")
)  # fmt: skip


class Names(dict[bytes, "T | None"], Generic[T]):
    """Field names of one direction, by spelling, each with its meaning; None means: passed on unread.

    A spelling that is met for the first time is checked, looked up in `meanings` (keyed by lower-case name) and
    remembered. `malformed` is the meaning of what is not a token; `fallback` may give a meaning to a lower-case name
    that `meanings` does not hold.
    """

    __slots__ = ("_fallback", "_malformed", "_meanings")

    def __init__(
        self, meanings: Mapping[bytes, T | None], malformed: T, fallback: Callable[[bytes], T | None] = lambda _: None
    ) -> None:
        super().__init__()
        self._meanings = meanings
        self._malformed = malformed
        self._fallback = fallback

    def __missing__(self, spelling: bytes) -> T | None:
        if TOKEN.fullmatch(spelling) is None:
            return self._malformed
        name = spelling.lower()
        meaning = self._meanings[name] if name in self._meanings else self._fallback(name)
        if len(self) >= _SPELLINGS:
            self.clear()
        self[spelling] = meaning
        return meaning

    def nominated(self, options: Collection[bytes]) -> frozenset[bytes]:
        """Give the fields that these Connection options take away: those that mean nothing to the gateway itself."""
        return frozenset(name for name in options if name not in self._meanings) - _GUARDED


def split_block(block: bytes) -> list[bytes] | None:
    """Split a block into its lines; None if a byte is there that may not be.

    Without the legal bytes exactly the CRLFs between the lines must be left. That excludes NUL and other controls and
    every CR or LF that stands alone (RFC 9112 §2.2).
    """
    lines = block.split(CRLF)
    if block.translate(None, VALUE_BYTES) != CRLF * (len(lines) - 1):
        return None
    del lines[0]
    if b"  " in block or b"\t" in block or b" \r\n" in block or block.endswith(b" "):
        return [_trimmed(line) for line in lines]
    return lines


def _trimmed(line: bytes) -> bytes:
    """Give a line without the blanks around its value (RFC 9112 §5.1), as two readers could take them differently."""
    name, colon, value = line.partition(b":")
    bare = value.strip(b" \t")
    return line if not colon or value in (bare, b" " + bare) else name + b": " + bare


def join_block(lines: list[bytes]) -> bytes:
    """Make a block of lines: each led by CRLF."""
    return CRLF + CRLF.join(lines) if lines else b""


def without(lines: list[bytes], names: Collection[bytes]) -> list[bytes]:
    """Give the lines whose lower-case name is not in `names`."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]


@lru_cache(maxsize=512)
def tokens(value: bytes) -> tuple[bytes, ...]:
    """Split a comma-separated list into lower-case elements; empty ones are ignored (RFC 9110 §5.6.1)."""
    return tuple(token for token in (part.strip(b" \t").lower() for part in value.split(b",")) if token)


def parse_length(value: bytes) -> int | None:
    """Give a Content-Length (RFC 9110 §8.6: digits only), or None if it is malformed or beyond 63 bits."""
    return int(value) if value.isdigit() and len(value) <= _LENGTH_DIGITS else None


# RFC 9110 §6.5.1: what frames, routes, authenticates, or was already decided on, may not come behind the body.
_TRAILER_BARRED: Final = (
    HOP_BY_HOP
    | _GUARDED
    | frozenset(
        (b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"te", b"trailer", b"expect",
         b"forwarded", b"x-real-ip", b"x-request-id", b"via", b"max-forwards", b"www-authenticate", b"age", b"expires",
         b"retry-after", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range")
    )
)  # fmt: skip


def filter_trailers(block: bytes) -> bytes | None:
    """Give the trailer lines of a block that may be passed on, as a block; None if the section is malformed."""
    lines = split_block(block)
    if lines is None:
        return None
    kept = []
    for line in lines:
        spelling, colon, _ = line.partition(b":")
        if not colon or TOKEN.fullmatch(spelling) is None:
            return None
        name = spelling.lower().replace(b"_", b"-")
        if name not in _TRAILER_BARRED and not name.startswith(b"x-forwarded-"):
            kept.append(line)
    return join_block(kept)
