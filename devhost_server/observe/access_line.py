"""A line of the access log: one JSON object, built as bytes.

It is put together from parts that are known to be clean JSON already (numbers, the prepared names of routes and
targets) and parts that a client chose, which are quoted unless they hold nothing but plain characters. What a client
chose is cut before anything is looked for in it, so that a line costs no more than the client paid for it, and a line
is never longer than the kernel keeps in one piece, so that lines of several workers do not mix.
"""

import re
import select
import time
from typing import TYPE_CHECKING, Final

from devhost_server import secrecy
from devhost_server.visible import json_string

if TYPE_CHECKING:
    from devhost_server.exchange import Exchange
    from devhost_server.messages.request_head import RequestFields

LINE_BYTES: Final = select.PIPE_BUF
"""The longest line: POSIX keeps writes of this many bytes to a pipe in one piece."""

# Printable ASCII without the two characters that JSON escapes.
_PLAIN: Final = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')
# The same without what a target with a secret must have: the = of a parameter or the @ behind a user, also encoded.
_HARMLESS: Final = bytes(byte for byte in _PLAIN if byte not in b"=@%")
_FIELD_BYTES: Final = secrecy.SHOWN_BYTES
# The longest beginning of a JSON string (less its quotes) in which no escape is cut in two.
_WHOLE_ESCAPES: Final = re.compile(rb"(?:[^\\]|\\u[0-9a-f]{4}|\\[^u])*")
_PLACED: Final = b'%b"attempts":%d,"connect_ms":%b,'
_OUTCOME: Final = b',"protocol":"%b","status":%d,"flag":%b,"bytes_in":%d,"bytes_out":'
_LINE: Final = b'{"ts":"%b","request_id":"%b",%b%b%b%d,"duration_ms":%.3f,%b"upstream_ms":%b,%b'
_HEAD: Final = b'"route":%b,"client":"%b","method":%b,"host":%b,"target":'
_TAIL: Final = b'"worker":%b,"user_agent":%b,"referer":%b,"traceparent":%b}\n'
# Texts remembered, and the longest that are: at most a megabyte, whatever clients invent.
_MEMORY: Final = 512
_MEMORY_LENGTH: Final = 256


def shown_text(raw: bytes) -> str:
    """Return what is shown of bytes that a client chose: cut, then without secrets; not UTF-8 as escapes."""
    cut = secrecy.shortened(raw)
    text = secrecy.without_secrets(cut.decode("utf-8", "backslashreplace"), cut=cut is not raw)
    return text if cut is raw else f"{text}… ({len(raw)} bytes)"


def quoted(raw: bytes) -> bytes:
    """Return what is shown of bytes that a client chose as a JSON string."""
    if len(raw) <= _FIELD_BYTES:
        odd = raw.translate(None, _HARMLESS)
        if not odd or (not odd.translate(None, _PLAIN) and not secrecy.may_hold_secret(raw)):
            return b'"' + raw + b'"'
    return json_string(shown_text(raw))


def _quoted_or_null(raw: bytes) -> bytes:
    return quoted(raw) if raw else b"null"


def shortened(encoded: bytes, most: int) -> bytes:
    """Return a JSON string that has at most `most` bytes; what is cut off leaves an ellipsis. null stays as it is."""
    if len(encoded) <= most:
        return encoded
    text = encoded[1 : most - len('…""'.encode()) + 1].decode("utf-8", "ignore").encode()
    whole = _WHOLE_ESCAPES.match(text)
    return b'"' + (b"" if whole is None else whole[0]) + '…"'.encode()


def equal_share(sizes: list[int], room: int) -> int:
    """Return how much each may have at most, so that all of them fit: who needs less leaves it to the others."""
    for done, size in enumerate(sorted(sizes)):
        share = room // (len(sizes) - done)
        if size > share:
            return share
        room -= size
    return max(sizes)


class _Memory(dict[bytes, bytes]):
    """Quoted values that keep coming back: methods, hosts, user agents; bounded in number and length."""

    def __missing__(self, raw: bytes) -> bytes:
        value = quoted(raw) if raw else b"null"
        if len(raw) <= _MEMORY_LENGTH:
            if len(self) >= _MEMORY:
                self.clear()
            self[raw] = value
        return value


class Clock:
    """The time stamp of a millisecond; the second's part of it lasts for a second."""

    __slots__ = ("_second", "_second_stamp", "now", "stamp")

    def __init__(self) -> None:
        self.now = self._second = -1
        self.stamp = self._second_stamp = b""

    def set(self, now: int) -> None:
        """Make the stamp for a millisecond of Unix time: UTC, as RFC 3339 has it."""
        self.now = now
        second, fraction = divmod(now, 1000)
        if second != self._second:
            self._second = second
            self._second_stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        self.stamp = b"%b.%03dZ" % (self._second_stamp, fraction)


def _place(x: "Exchange") -> bytes:
    """Return the part that says where a request went and how it got there."""
    target = x.target
    if target is not None:
        place = target.log_place
    else:
        place = b'"upstream":%b,"target_addr":null,' % (b"null" if x.route is None else x.route.log_upstream)
    connect = b"%.3f" % (x.connect_seconds * 1000) if x.connect_seconds else b"null"
    return _PLACED % (place, x.attempts, connect)


def _outcome(x: "Exchange") -> bytes:
    """Return the part behind the target of a request: what came of it, up to the size of the answer."""
    flag = b"null" if x.fault is None else b'"' + x.fault.failure.flag.encode() + b'"'
    return _OUTCOME % (b"HTTP/1.0" if x.old else b"HTTP/1.1", x.status, flag, x.bytes_in)


class _Outcomes(dict[int, bytes]):
    """The same for an HTTP/1.1 request without a body and without a fault, by status: there are 500 at most."""

    def __missing__(self, status: int) -> bytes:
        outcome = self[status] = _OUTCOME % (b"HTTP/1.1", status, b"null", 0)
        return outcome


class _AtOnce(dict[bytes, bytes]):
    """The part of `_place` for a first try over an idle connection, by what names the target there."""

    def __missing__(self, place: bytes) -> bytes:
        if len(self) >= _MEMORY:  # reloads make new targets
            self.clear()
        placed = self[place] = _PLACED % (place, 1, b"null")
        return placed


class JsonLines:
    """The lines of one worker."""

    def __init__(self, worker: int) -> None:
        self._worker = b"%d" % worker
        self._clock = Clock()
        self._words = _Memory()
        self._usual_outcomes = _Outcomes()
        self._at_once = _AtOnce()

    def line(self, x: "Exchange") -> bytes:
        """Return the line of an exchange that is over."""
        clock, now = self._clock, int(time.time() * 1000)
        if now != clock.now:
            clock.set(now)
        target, path = x.target, x.target_path
        head, tail = self._shared_parts(x, x.fields)
        usual = x.fault is None and not x.bytes_in and not x.old
        plain = not path.translate(None, _HARMLESS) and len(path) <= _FIELD_BYTES
        line = _LINE % (
            clock.stamp,
            x.request_id,
            head,
            b'"' + path + b'"' if plain else quoted(path),
            self._usual_outcomes[x.status] if usual else _outcome(x),
            x.bytes_out,
            x.seconds * 1000,
            _place(x) if target is None or x.attempts != 1 or x.connect_seconds else self._at_once[target.log_place],
            b"%.3f" % (x.upstream_seconds * 1000) if x.upstream_seconds else b"null",
            tail,
        )
        return line if len(line) <= LINE_BYTES else self._fitted(x, len(line))

    def _fitted(self, x: "Exchange", size: int) -> bytes:
        """Return the line with its texts cut, the longest of them first, until it fits."""
        fields = x.fields
        words = self._words
        texts = [words[x.method], words[x.host], quoted(x.target_path)]
        if fields is not None:
            texts += (words[fields.user_agent], _quoted_or_null(fields.referer), _quoted_or_null(fields.traceparent))
        sizes = [len(text) for text in texts]
        share = equal_share(sizes, LINE_BYTES - (size - sum(sizes)))
        method, host, path, *others = [shortened(text, share) for text in texts]
        return _LINE % (
            self._clock.stamp,
            x.request_id,
            self._head(x, method, host),
            path,
            _outcome(x),
            x.bytes_out,
            x.seconds * 1000,
            _place(x),
            b"%.3f" % (x.upstream_seconds * 1000) if x.upstream_seconds else b"null",
            _TAIL % (self._worker, *(others or (b"null", b"null", b"null"))),
        )

    def _shared_parts(self, x: "Exchange", fields: "RequestFields | None") -> tuple[bytes, bytes]:
        """Return the parts that requests with the same fields share: from the route to the host, and behind the worker.

        They are kept with the fields, so that a connection's next request finds them made.
        """
        words = self._words
        if fields is None:
            return self._head(x, words[x.method], words[x.host]), _TAIL % (self._worker, b"null", b"null", b"null")
        if not fields.log_tail:
            # Pages and traces are hardly ever the same twice: not worth remembering.
            referer, traceparent = _quoted_or_null(fields.referer), _quoted_or_null(fields.traceparent)
            fields.log_tail = _TAIL % (self._worker, words[fields.user_agent], referer, traceparent)
        if fields.log_route is x.route and fields.log_method == x.method and fields.host is x.host:
            return fields.log_head, fields.log_tail
        head = self._head(x, words[x.method], words[x.host])
        if x.route is not None and fields.host is x.host:
            fields.log_route, fields.log_method, fields.log_head = x.route, x.method, head
        return head, fields.log_tail

    def _head(self, x: "Exchange", method: bytes, host: bytes) -> bytes:
        route = b"null" if x.route is None else x.route.log_name
        return _HEAD % (route, x.client_address, method, host)
