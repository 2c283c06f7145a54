"""The chunked transfer coding (RFC 9112 §7.1), decoded strictly and without I/O.

Sizes are hexadecimal digits alone, lines end in CRLF alone, and what follows the data of a chunk is CRLF. In answers,
blanks behind a size are read over, with which old servers pad it. Extensions are read over (§7.1.1) but bounded.
Framing is made anew on the other side, so nothing malformed is ever passed on.
"""

import re
from typing import Final

from devhost_server.messages.fields import CRLF, filter_trailers, is_clean

# Sixteen digits fit 64 bits; more would be leading zeros at best and an overflow somewhere behind us at worst.
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?")
_PADDED_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[\t ]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
# Bounds one size line with its extension. The longest seen in the wild are signatures of about 100 bytes.
_LINE_LIMIT: Final = 1024
# Bounds all extensions of one body: without it a client sends one byte of content per kilobyte of extension (the
# resource attack of RFC 9112 §7.1.1).
_EXTENSIONS_LIMIT: Final = 16 * 1024

LAST_CHUNK: Final = b"0\r\n"
END: Final = b"0\r\n\r\n"

_SIZE_LINE, _DATA, _DATA_END, _TRAILERS, _DONE = range(5)


def encode(data: bytes) -> bytes:
    """Frame non-empty `data` as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class ChunkedError(Exception):
    """The body is not in the chunked coding; raised by `ChunkedDecoder.feed` and met by its caller at once."""


class ChunkedDecoder:
    """Decodes one chunked body.

    `trailer_limit` bounds the trailer section in bytes, `trailer_lines` in lines; `padded` allows blanks behind a size.
    Once `done`, `trailers` holds the block of trailer lines that may be passed on and `rest` the bytes behind the body;
    `empty` says that there has been no content so far.
    """

    __slots__ = (
        "_buffer",
        "_extensions",
        "_judged",
        "_left",
        "_section",
        "_size",
        "_state",
        "_trailer_limit",
        "_trailer_lines",
        "empty",
        "rest",
        "trailers",
    )

    def __init__(self, trailer_limit: int, trailer_lines: int = 100, *, padded: bool = False) -> None:
        self._state = _SIZE_LINE
        self._left = 0
        self._buffer = b""
        self._extensions = 0
        self._judged = 0  # bytes of an unfinished trailer section whose lines have been judged
        self._section = bytearray()  # what has come of it
        self._trailer_limit = trailer_limit
        self._trailer_lines = trailer_lines
        self._size = _PADDED_SIZE if padded else _SIZE
        self.empty = True
        self.trailers = b""
        self.rest = b""

    @property
    def done(self) -> bool:
        """Whether the last chunk and the trailer section have been read."""
        return self._state == _DONE

    def feed(self, data: bytes) -> list[bytes]:
        """Take in bytes and give the pieces of content among them. Raises `ChunkedError`."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        pieces: list[bytes] = []
        at, size = 0, len(data)
        while at < size:
            if self._state == _TRAILERS:
                self._take_trailers(data[at:])
                break
            if self._state == _DATA:
                taken = min(self._left, size - at)
                pieces.append(data[at : at + taken])
                self._left -= taken
                at += taken
                if not self._left:
                    self._state = _DATA_END
                continue
            step = self._read_end(data, at) if self._state == _DATA_END else self._read_line(data, at)
            if step < 0:
                self._buffer = data[at:]
                return pieces
            at = step
        return pieces

    def _read_end(self, data: bytes, at: int) -> int:
        """Step over the CRLF behind a chunk's data; -1 if it has not arrived whole."""
        found = data[at : at + 2]
        if found == CRLF:
            self._state = _SIZE_LINE
            return at + 2
        if found == b"\r":
            return -1
        raise ChunkedError("The data of a chunk is not followed by CRLF.")

    def _read_line(self, data: bytes, at: int) -> int:
        end = data.find(CRLF, at, at + _LINE_LIMIT)
        if end < 0:
            self._judge_partial(data[at : at + _LINE_LIMIT])
            return -1
        found = self._size.fullmatch(data, at, end)
        if found is None:
            raise ChunkedError("A chunk does not begin with its size in hexadecimal digits.")
        self._extensions += end - found.end(1)
        if self._extensions > _EXTENSIONS_LIMIT:
            raise ChunkedError("The chunk extensions are too long.")
        self._left = int(found[1], 16)
        if self._left:
            self.empty = False
            self._state = _DATA
            return end + 2
        # The CRLF of the last chunk's line stays: a trailer section is read as a block, whose lines are led by CRLF.
        self._state = _TRAILERS
        return end

    def _judge_partial(self, line: bytes) -> None:
        """Refuse a size line that cannot become a good one, so that its end is not waited for."""
        if len(line) >= _LINE_LIMIT:
            raise ChunkedError("A chunk's size line is too long.")
        whole = line[:-1] if line.endswith(b"\r") else line
        if whole and self._size.fullmatch(whole) is None:
            raise ChunkedError("A chunk does not begin with its size in hexadecimal digits.")

    def _take_trailers(self, data: bytes) -> None:
        """Take in more of the trailer section; each byte is looked at once, however many come at a time."""
        section = self._section
        seen = len(section)
        section += data
        end = section.find(b"\r\n\r\n", max(seen - 3, 0), self._trailer_limit)
        if end < 0:
            if len(section) >= self._trailer_limit:
                raise ChunkedError("The trailer section is too long.")
            self._judge_trailers(seen)
            return
        if section.count(CRLF, 0, end) > self._trailer_lines:
            raise ChunkedError("The trailer section has too many lines.")
        trailers = filter_trailers(bytes(section[:end]))
        if trailers is None:
            raise ChunkedError("The trailer section is malformed.")
        self.trailers = trailers
        self.rest = bytes(section[end + 4 :])
        self._section.clear()
        self._state = _DONE

    def _judge_trailers(self, seen: int) -> None:
        """Refuse an unfinished trailer section that cannot become a good one; `seen` bytes of it were judged before."""
        section = self._section
        last = section.rfind(CRLF, max(self._judged, seen - 1))
        if last > self._judged:
            if filter_trailers(bytes(section[self._judged : last])) is None:
                raise ChunkedError("The trailer section is malformed.")
            self._judged = last
        if not is_clean(section, max(self._judged, seen - 1, 0)):
            raise ChunkedError("The trailer section holds a control, or a CR or LF that stands alone.")
