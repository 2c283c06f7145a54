"""The access log: lines written in batches (what a line says is `devhost_server.observe.access_line`'s business).

One write takes a whole batch to a file; to a pipe or a terminal, which several workers share, each write stays within
what the kernel keeps in one piece. A log that cannot be written loses lines, counts them and says so; it never holds up
traffic.
"""

import errno
import logging
import os
import select
import socket
import stat
import time
from typing import TYPE_CHECKING, Final

from devhost_server.observe.access_line import JsonLines
from devhost_server.observe.console_line import ConsoleLines
from devhost_server.shared.board import Slot

if TYPE_CHECKING:
    from devhost_server.exchange import Exchange

_log = logging.getLogger("devhost_server.access_log")

# Lines held while the log cannot be written; beyond it, they are dropped.
_HELD_BYTES: Final = 4 * 1024 * 1024
# A batch is written at the latest when it has this size, whatever its age.
_BATCH_BYTES: Final = 32 * 1024
# Seconds until a destination that fails is tried again, and until it is told again that it does.
_RETRY: Final = 1.0
_REMINDER: Final = 60.0


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


class AccessLog:
    """One worker's access log. `destination` is a path, "stdout" or None for no log at all.

    On a terminal its lines are for people, unless `json` asks for JSON everywhere.
    One that cannot be opened is told, and tried again while there are lines for it.
    """

    def __init__(self, destination: str | None, row: memoryview, worker: int, *, json: bool = False) -> None:
        self._destination = destination
        self._row = row
        self._worker = b"%d" % worker
        self._lines: list[bytes] = []
        self._size = 0
        self._stuck = False
        self._json = json
        self._json_lines = JsonLines(worker)
        self._form: JsonLines | ConsoleLines = self._json_lines
        self._sink: Sink | None = None
        self._retry_at = self._quiet_until = 0.0  # monotonic seconds
        self.enabled = destination is not None
        self.reopen()

    @classmethod
    def opened(cls, destination: str | None, row: memoryview, worker: int, *, json: bool = False) -> "AccessLog":
        """Make one that is open. Raises `AccessLogError`."""
        log = cls(None, row, worker, json=json)
        log._destination, log.enabled = destination, destination is not None
        if destination is not None:
            try:
                log._use(_open(destination))
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
        self._use(sink)

    def _use(self, sink: "Sink") -> None:
        self._sink = sink
        self._form = ConsoleLines() if sink.is_terminal and not self._json else self._json_lines

    def _failed(self, sentence: str) -> None:
        """Stop writing to a destination that fails for a moment, and log the failure, but not each time."""
        now = time.monotonic()
        self._retry_at = now + _RETRY
        if now >= self._quiet_until:
            self._quiet_until = now + _REMINDER
            worker = self._worker.decode()
            _log.error("worker %s: %s; lines that cannot be kept are lost, and counted", worker, sentence)

    def write(self, x: "Exchange") -> None:
        """Add the line of an exchange that is over."""
        line = self._form.line(x)
        self._lines.append(line)
        self._size += len(line)
        if self._size > _BATCH_BYTES:
            if not self._stuck:
                self.flush()
            elif self._size > _HELD_BYTES:
                self._drop(len(self._lines) // 4)

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
        """Drop the oldest lines, and count them."""
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
        """Return the end of the lines from `at` on that go out in one write."""
        return len(lines)

    def _send(self, piece: bytes) -> int:
        return os.write(self._fd, piece)

    @property
    def is_terminal(self) -> bool:
        """Whether a person may be reading."""
        return os.isatty(self._fd)

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
        return _sink_for(_open_path(destination))
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


def _open_path(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o640)
    except PermissionError:
        if path not in _kept_open:
            raise
        return os.dup(_kept_open[path])


def keep_open(destination: str | None) -> None:
    """Open a file for processes that are forked from here and may not open it themselves. Raises `OSError`."""
    if destination not in (None, "stdout") and not _is_pipe(destination):
        old, _kept_open[destination] = _kept_open.get(destination), _open_path(destination)
        if old is not None:
            os.close(old)


# Files that the master has opened as root for workers that are not.
_kept_open: dict[str, int] = {}


def _sink_for(fd: int) -> Sink:
    return Sink(fd) if stat.S_ISREG(os.fstat(fd).st_mode) else _SharedSink(fd)
