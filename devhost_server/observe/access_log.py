"""The access log: one JSON object a line, built as bytes, written in batches.

A line is put together from parts that are known to be clean JSON already (numbers, the prepared names of routes and
targets) and parts that a client chose, which are quoted unless they hold nothing but plain characters. One write takes
a whole batch to a file; to a pipe or a terminal, which several workers share, each write stays within what the kernel
keeps in one piece. A log that cannot be written loses lines, counts them and says so; it never holds up traffic.
"""

import errno
import logging
import os
import re
import select
import socket
import stat
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

import orjson

from devhost_server import secrecy
from devhost_server.observe.scoreboard import Slot

if TYPE_CHECKING:
    from devhost_server.exchange import Exchange
    from devhost_server.http.request_head import RequestFields

_log = logging.getLogger("devhost_server.access_log")

# Printable ASCII without the two characters that JSON escapes.
_PLAIN: Final = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')
# The same without what a target with a secret must have: the = of a parameter or the @ behind a user.
_HARMLESS: Final = bytes(byte for byte in _PLAIN if byte not in b"=@")
# What is called like a secret in a query is logged without its value, and a user in a URL not at all.
_SECRET_NAME: Final = re.compile(
    f"{secrecy.PARAMETER_WORDS}|\\A(?:{secrecy.PARAMETER_NAMES})\\Z".encode(), re.IGNORECASE
)
# Searched in lower case: ignoring case takes three times as long, and this is done for every URL with a parameter.
_SECRET_HINT: Final = re.compile(f"{secrecy.PARAMETER_WORDS}|%|[?&;#](?:{secrecy.PARAMETER_NAMES})=".encode())
# A semicolon may separate parameters or belong to a value: it ends a name, never a secret.
_PARAMETER: Final = re.compile(rb"([?&;#])([^=&;#]*)=([^&#]*)")
_USER: Final = re.compile(rb"//[^/?#]*@")
# Lines held while the log cannot be written; beyond it, they are dropped.
_HELD_BYTES: Final = 4 * 1024 * 1024
# A batch is written at the latest when it has this size, whatever its age.
_BATCH_BYTES: Final = 32 * 1024
# Seconds until a destination that fails is tried again, and until it is told again that it does.
_RETRY: Final = 1.0
_REMINDER: Final = 60.0
PLACED: Final = b'%b"attempts":%d,"connect_ms":%b,'
_OUTCOME: Final = b',"protocol":"%b","status":%d,"flag":%b,"bytes_in":%d,"bytes_out":'
_MEMORY: Final = 1024
_MEMORY_LENGTH: Final = 512


class AccessLogError(Exception):
    """The destination of the access log cannot be opened; the text is a sentence."""


def check_destination(destination: str | None) -> None:
    """Open a destination as a worker will, and close it again. Raises `AccessLogError`.

    A named pipe is left alone: its reader would take the closing for the end.
    """
    try:
        if destination is not None and not _is_pipe(destination):
            _open(destination).close()
    except OSError as error:
        raise AccessLogError(_unopened(destination, error)) from None


def _is_pipe(destination: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(destination).st_mode)
    except OSError:
        return False


def _unopened(destination: str | None, error: OSError) -> str:
    hint = " (does nobody read it?)" if error.errno == errno.ENXIO else ""
    return f"log.access: cannot write to {destination}: {error.strerror}{hint}"


def quoted(raw: bytes) -> bytes:
    """Give bytes that a client chose as a JSON string; what is not UTF-8 is shown as escapes."""
    return orjson.dumps(raw.decode("utf-8", "backslashreplace"))


def without_secrets(url: bytes) -> bytes:
    """Mask the values of query parameters that are called like secrets, and the user of an absolute URL."""
    if b"=" in url and _SECRET_HINT.search(url.lower()):
        url = _PARAMETER.sub(_masked, url)
    return _USER.sub(b"//***@", url) if b"@" in url else url


def _masked(parameter: re.Match[bytes]) -> bytes:
    separator, name, _ = parameter.groups()
    plain = unquote_to_bytes(name) if b"%" in name else name
    return separator + name + b"=***" if _SECRET_NAME.search(plain) else parameter[0]


class _Memory(dict[bytes, bytes]):
    """Quoted values that keep coming back: methods, hosts, user agents; bounded in number and length."""

    def __missing__(self, raw: bytes) -> bytes:
        value = quoted(without_secrets(raw)) if raw else b"null"
        if len(raw) <= _MEMORY_LENGTH:
            if len(self) >= _MEMORY:
                self.clear()
            self[raw] = value
        return value


def _place(x: "Exchange") -> bytes:
    """Give the part that says where a request went and how it got there."""
    if x.target is not None:
        place = x.target.log_place
    else:
        place = b'"upstream":%b,"target_addr":null,' % (b"null" if x.route is None else x.route.log_upstream)
    connect = b"%.3f" % (x.connect_seconds * 1000) if x.connect_seconds else b"null"
    return PLACED % (place, x.attempts, connect)


def _outcome(x: "Exchange") -> bytes:
    """Give the part behind the target of a request: what came of it, up to the size of the answer."""
    flag = b"null" if x.fault is None else b'"' + x.fault.failure.flag.encode() + b'"'
    return _OUTCOME % (b"HTTP/1.0" if x.old else b"HTTP/1.1", x.status, flag, x.bytes_in)


class _Outcomes(dict[int, bytes]):
    """The same for an HTTP/1.1 request without a body and without a fault, by status: there are 500 at most."""

    def __missing__(self, status: int) -> bytes:
        outcome = self[status] = _OUTCOME % (b"HTTP/1.1", status, b"null", 0)
        return outcome


class AccessLog:
    """One worker's access log. `destination` is a path, "stdout" or None for no log at all.

    One that cannot be opened is told, and tried again while there are lines for it.
    """

    def __init__(self, destination: str | None, row: memoryview, worker: int) -> None:
        self._destination = destination
        self._row = row
        self._worker = b"%d" % worker
        self._lines: list[bytes] = []
        self._size = 0
        self._stuck = False
        self._now = self._second = -1
        self._stamp = self._second_stamp = b""
        self._words = _Memory()
        self._usual_outcomes = _Outcomes()
        self._sink: Sink | None = None
        self._retry_at = self._quiet_until = 0.0  # monotonic seconds
        self.enabled = destination is not None
        self.reopen()

    @classmethod
    def opened(cls, destination: str | None, row: memoryview, worker: int) -> "AccessLog":
        """Make one that is open. Raises `AccessLogError`."""
        log = cls(None, row, worker)
        log._destination, log.enabled = destination, destination is not None
        if destination is not None:
            try:
                log._sink = _open(destination)
            except OSError as error:
                raise AccessLogError(_unopened(destination, error)) from None
        return log

    def reopen(self) -> None:
        """Write what is held, then open the destination anew (after a rotation).

        Where that fails, the old one stays in use; where there is none, the lines that are lost are counted.
        """
        if self._destination is None:
            return
        self._retry_at = self._quiet_until = 0.0
        self.flush()
        self._open()

    def _open(self) -> None:
        if self._destination is None:
            return
        try:
            sink = _open(self._destination)
        except OSError as error:
            self._failed(_unopened(self._destination, error))
            return
        if self._sink is not None:
            self._sink.close()
        self._sink = sink

    def _failed(self, sentence: str) -> None:
        """Let a destination that fails alone for a moment, and say that it fails, though not each time."""
        now = time.monotonic()
        self._retry_at = now + _RETRY
        if now >= self._quiet_until:
            self._quiet_until = now + _REMINDER
            worker = self._worker.decode()
            _log.error("worker %s: %s; lines that cannot be kept are lost, and counted", worker, sentence)

    def write(self, x: "Exchange") -> None:
        """Add the line of an exchange that is over."""
        now = int(time.time() * 1000)
        if now != self._now:
            self._set_clock(now)
        target, path = x.target, x.target_path
        head, tail = self._shared_parts(x, x.fields)
        usual = x.fault is None and not x.bytes_in and not x.old
        line = b'{"ts":"%b","request_id":"%b",%b%b%b%d,"duration_ms":%.3f,%b"upstream_ms":%b,%b' % (
            self._stamp,
            x.request_id,
            head,
            quoted(without_secrets(path)) if path.translate(None, _HARMLESS) else b'"' + path + b'"',
            self._usual_outcomes[x.status] if usual else _outcome(x),
            x.bytes_out,
            x.seconds * 1000,
            _place(x) if target is None or x.attempts != 1 or x.connect_seconds else target.log_place_at_once,
            b"%.3f" % (x.upstream_seconds * 1000) if x.upstream_seconds else b"null",
            tail,
        )
        self._lines.append(line)
        self._size += len(line)
        if self._size > _BATCH_BYTES:
            if not self._stuck:
                self.flush()
            elif self._size > _HELD_BYTES:
                self._drop(len(self._lines) // 4)

    def _set_clock(self, now: int) -> None:
        """Make the time stamp for a millisecond of Unix time; the second's part of it lasts for a second."""
        self._now = now
        second, fraction = divmod(now, 1000)
        if second != self._second:
            self._second = second
            self._second_stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        self._stamp = b"%b.%03dZ" % (self._second_stamp, fraction)

    def _shared_parts(self, x: "Exchange", fields: "RequestFields | None") -> tuple[bytes, bytes]:
        """Give the parts that requests with the same fields share: from the route to the host, and from the worker on.

        They are kept with the fields, so that a connection's next request finds them made.
        """
        if fields is None:
            return self._head(x), self._tail(b"", b"", b"")
        if not fields.log_tail:
            fields.log_tail = self._tail(fields.user_agent, fields.referer, fields.traceparent)
        if fields.log_route is x.route and fields.log_method == x.method and fields.host is x.host:
            return fields.log_head, fields.log_tail
        head = self._head(x)
        if x.route is not None and fields.host is x.host:
            fields.log_route, fields.log_method, fields.log_head = x.route, x.method, head
        return head, fields.log_tail

    def _head(self, x: "Exchange") -> bytes:
        return b'"route":%b,"client":"%b","method":%b,"host":%b,"target":' % (
            b"null" if x.route is None else x.route.log_name,
            x.client_address,
            self._words[x.method],
            self._words[x.host],
        )

    def _tail(self, user_agent: bytes, referer: bytes, traceparent: bytes) -> bytes:
        return b'"worker":%b,"user_agent":%b,"referer":%b,"traceparent":%b}\n' % (
            self._worker,
            self._words[user_agent],
            self._words[referer],
            quoted(traceparent) if traceparent else b"null",
        )

    def flush(self) -> None:
        """Write what has gathered; what the destination does not take now is held, up to a bound."""
        if not self.held:
            return
        if time.monotonic() >= self._retry_at:
            self._try()
        self._size = sum(map(len, self._lines))
        # Until the next tick, what did not go is not tried again: a reader that sleeps must not slow the traffic.
        self._stuck = bool(self._lines)
        if self._sink is None or self._sink.gone:
            self._drop(len(self._lines))

    def _try(self) -> None:
        if self._sink is None:
            self._open()
        if self._sink is not None:
            self._lines = self._sink.write(self._lines)
            if self._sink.error is not None:
                self._failed(f"log.access: cannot write to {self._destination}: {self._sink.error.strerror}")

    def _drop(self, count: int) -> None:
        """Give up the oldest lines, and count them."""
        self._size -= sum(map(len, self._lines[:count]))
        del self._lines[:count]
        self._row[Slot.LOG_DROPPED] += count

    @property
    def held(self) -> bool:
        """Whether there are lines that the destination has not taken yet."""
        return bool(self._lines) or (self._sink is not None and self._sink.holds)

    @property
    def is_awaited(self) -> bool:
        """Whether lines are held because their reader is slow, so that waiting for it may help."""
        return self.held and self._sink is not None and not self._sink.gone and self._sink.error is None

    def close(self) -> None:
        """Write what is left; what is not taken now is lost, and counted."""
        self._retry_at = 0.0
        self.flush()
        self._drop(len(self._lines))
        if self._sink is not None:
            self._sink.close()
            self._sink = None


class Sink:
    """A regular file: one write takes everything.

    `gone` says that nothing will ever be taken again, `error` why the last write failed, unless for want of a quicker
    reader. What was written of a line is always followed by its rest.
    """

    def __init__(self, fd: int) -> None:
        self.gone = False
        self.error: OSError | None = None
        self._fd = fd
        self._rest = b""

    def write(self, lines: list[bytes]) -> list[bytes]:
        """Write lines, as many as are taken now; give the others."""
        at = 0
        self.error = None
        try:
            if self._rest:
                self._rest = self._rest[self._send(self._rest) :]
            while at < len(lines) and not self._rest:
                end = self._piece_end(lines, at)
                piece = b"".join(lines[at:end])
                self._rest = piece[self._send(piece) :]
                at = end
        except BlockingIOError:
            pass
        except OSError as error:
            # A reader that is gone will not come back; a full disk may be cleared.
            self.error = error
            self.gone = error.errno in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)
        return lines[at:]

    @property
    def holds(self) -> bool:
        """Whether the rest of a line that was written in part waits to be written."""
        return bool(self._rest) and not self.gone

    def _piece_end(self, lines: list[bytes], at: int) -> int:
        """Give the end of the lines from `at` on that go out in one write."""
        return len(lines)

    def _send(self, piece: bytes) -> int:
        return os.write(self._fd, piece)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class _SharedSink(Sink):
    """A pipe, terminal or socket: several workers write to it, and it may be full.

    POSIX keeps writes of up to PIPE_BUF bytes in one piece, so that lines of different workers do not mix.
    """

    def _piece_end(self, lines: list[bytes], at: int) -> int:
        end, size = at + 1, len(lines[at])
        while end < len(lines) and size + len(lines[end]) <= select.PIPE_BUF:
            size += len(lines[end])
            end += 1
        return end


class _SocketSink(_SharedSink):
    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._socket = socket.socket(fileno=fd)

    def _send(self, piece: bytes) -> int:
        return self._socket.send(piece, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        """Close the socket, and its descriptor with it."""
        self._socket.close()


class _PolledSink(_SharedSink):
    """A pipe that cannot be opened anew without blocking: asked before each write."""

    def _send(self, piece: bytes) -> int:
        if not select.select([], [self._fd], [], 0)[1]:
            raise BlockingIOError(errno.EAGAIN, "no room")
        return os.write(self._fd, piece)


def _open(destination: str) -> Sink:
    if destination != "stdout":
        return _sink_for(os.open(destination, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o640))
    mode = os.fstat(1).st_mode
    if stat.S_ISREG(mode):
        return Sink(os.dup(1))
    if stat.S_ISSOCK(mode):
        return _SocketSink(os.dup(1))
    try:
        # A description of our own: O_NONBLOCK on the inherited one would surprise whoever shares it.
        return _SharedSink(os.open("/proc/self/fd/1", os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return _PolledSink(os.dup(1))


def _sink_for(fd: int) -> Sink:
    return Sink(fd) if stat.S_ISREG(os.fstat(fd).st_mode) else _SharedSink(fd)
