"""A request head that comes in pieces: what is wrong with it is seen early, and each byte is looked at once.

A client may send a head byte by byte. Looking at all that has come with every byte would let it choose our work.
"""

from typing import TYPE_CHECKING, Final

from devhost_server.failures import HEAD_TOO_LARGE, TARGET_TOO_LONG, Fault
from devhost_server.messages.fields import CRLF, is_clean
from devhost_server.messages.request_head import (
    BAD_BYTES,
    BAD_LINE,
    LINE_BYTES,
    LONG_METHOD,
    METHOD_BYTES,
    parse_request_line,
)

if TYPE_CHECKING:
    from devhost_server.messages.options import Limits

# What a request line has beside its target: a method, a version and two blanks.
_LINE_ROOM: Final = 64


class PartialHead:
    """What has come of a head.

    Only what no further byte can mend is reported: what is too long, controls, a CR or LF that stands alone, a first
    line that is malformed.
    """

    __slots__ = ("_at", "_first", "_limits", "_line_end", "_lines", "_second", "data")

    def __init__(self, limits: "Limits") -> None:
        self.data = bytearray()
        self._limits = limits
        self._at = 0  # where what has not been judged begins
        self._first = self._second = -1  # where the blanks of the first line are
        self._line_end = -1
        self._lines = 0  # ends of lines so far

    def feed(self, piece: bytes) -> int:
        """Take in what has come; return where the head ends, -1 if its end has not come."""
        seen = len(self.data)
        self.data += piece
        return self.data.find(b"\r\n\r\n", max(seen - 3, 0))

    def judge(self) -> Fault | None:
        """Return what is wrong already with a head whose end has not come within the limits."""
        data, limits = self.data, self._limits
        begin = max(self._at - 1, 0)  # a CR may have waited for its LF
        self._lines += data.count(CRLF, begin)
        if self._line_end < 0:
            fault = self._judge_line(begin)
            if fault is not None:
                return fault
        if len(data) > limits.head:
            return HEAD_TOO_LARGE(f"The request head is larger than {limits.head} bytes.")
        if self._lines > limits.headers + 1:
            return HEAD_TOO_LARGE(f"The request has more than {limits.headers} header lines.")
        begin = max(begin, self._line_end)
        self._at = len(data)
        return None if self._line_end < 0 or is_clean(data, begin) else BAD_BYTES

    def _judge_line(self, begin: int) -> Fault | None:
        """Judge the first line, or what has come of it."""
        data, target_limit = self.data, self._limits.target
        self._line_end = data.find(CRLF, begin)
        end = len(data) if self._line_end < 0 else self._line_end
        if self._first < 0:
            self._first = data.find(b" ", begin, end)
        if self._first >= 0 and self._second < 0:
            self._second = data.find(b" ", max(begin, self._first + 1), end)
        target_end = end if self._second < 0 else self._second
        if end > target_limit + _LINE_ROOM or (self._first >= 0 and target_end - self._first - 1 > target_limit):
            if self._first < 0 or self._first > METHOD_BYTES:
                return LONG_METHOD
            return TARGET_TOO_LONG(f"The request target is longer than {target_limit} bytes.")
        whole = end - 1 if self._line_end < 0 and data.endswith(b"\r") else end
        if bytes(data[begin:whole]).translate(None, LINE_BYTES):
            return BAD_LINE
        if (whole if self._first < 0 else self._first) > METHOD_BYTES:
            return LONG_METHOD
        if self._line_end < 0:
            return None
        parsed = parse_request_line(bytes(data[:end]))
        return parsed if isinstance(parsed, Fault) else None
