"""A socket with a read buffer, a deadline on every wait, and a memory of how the other side ended."""

import contextlib
import select
import socket
import struct
import threading
import time
from typing import Literal

from tests.support.net import ready
from tests.support.secure import TlsSocket
from tests.support.waiting import patient

End = Literal["fin", "rst"]


class PeerGoneError(ConnectionError):
    """The other side ended the connection before what was waited for had come; `end` says how."""

    def __init__(self, end: End, waiting_for: str, got: bytes) -> None:
        super().__init__(f"the peer ended the connection ({end}) while waiting for {waiting_for}; got {got[-200:]!r}")
        self.end = end


class Wire:
    """One side of a connection, over TLS where the socket is.

    `received` keeps every byte that ever came (tests here move megabytes at most, except where `remember` is off);
    `end` is None while the other side may still send. All waits raise TimeoutError at their deadline.
    """

    def __init__(self, sock: socket.socket | TlsSocket, timeout: float = 5.0, remember: bool = True) -> None:
        self.sock = sock
        self.timeout = timeout
        self.buffer = bytearray()
        self.received = bytearray()
        self.remember = remember
        self.end: End | None = None
        self.ended_at: float | None = None
        self.sent = 0
        self._closing = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        name, got = type(self).__name__, len(self.received)
        return f"<{name} got {got} bytes, end {self.end}, buffered {bytes(self.buffer[:40])!r}>"

    def fill(self, timeout: float | None = None) -> bool:
        """Wait for more bytes; False once the other side has ended. Raises TimeoutError."""
        if self.end:
            return False
        try:
            data = self._receive(patient(self.timeout) if timeout is None else timeout)
        except (TimeoutError, BlockingIOError) as error:
            raise TimeoutError(f"nothing came in time; so far {bytes(self.received[-300:])!r}") from error
        except OSError:
            return self._ended("rst")
        if not data:
            return self._ended("fin")
        self.buffer += data
        if self.remember:
            self.received += data
        return True

    def read_until(self, delimiter: bytes, limit: int = 1 << 22, timeout: float | None = None) -> bytes:
        """Everything up to and with `delimiter`."""
        deadline = self._deadline(timeout)
        start = 0
        while (at := self.buffer.find(delimiter, start)) < 0:
            start = max(len(self.buffer) - len(delimiter) + 1, 0)
            assert len(self.buffer) <= limit, f"no {delimiter!r} within {limit} bytes"
            if not self.fill(deadline - time.monotonic()):
                raise PeerGoneError(self.end or "fin", repr(delimiter), bytes(self.buffer))
        return self.take(at + len(delimiter))

    def read_exactly(self, size: int, timeout: float | None = None) -> bytes:
        """The next `size` bytes."""
        deadline = self._deadline(timeout)
        while len(self.buffer) < size:
            if not self.fill(deadline - time.monotonic()):
                raise PeerGoneError(self.end or "fin", f"{size} bytes", bytes(self.buffer))
        return self.take(size)

    def read_some(self, limit: int = 1 << 20, timeout: float | None = None) -> bytes:
        """What is there, at least one byte; nothing once the other side has ended."""
        if not self.buffer:
            self.fill(timeout)
        return self.take(min(limit, len(self.buffer)))

    def read_to_end(self, timeout: float | None = None) -> bytes:
        """Everything until the other side ends, however it does."""
        deadline = self._deadline(timeout)
        while self.fill(deadline - time.monotonic()):
            pass
        return self.take(len(self.buffer))

    def wait_end(self, timeout: float | None = None) -> End:
        """Wait for the other side to end the connection, discarding what still comes; says how it ended."""
        deadline = self._deadline(timeout)
        while self.fill(deadline - time.monotonic()):
            self.buffer.clear()
        assert self.end
        return self.end

    def take(self, size: int) -> bytes:
        """The first `size` bytes of the buffer, removed from it."""
        piece = bytes(self.buffer[:size])
        del self.buffer[:size]
        return piece

    def silent(self, seconds: float) -> bool:
        """Whether nothing comes, not even an end, for so long."""
        if self.buffer or self.end:
            return False
        try:
            self.fill(seconds)
        except TimeoutError:
            return True
        return False

    def send(self, data: bytes, timeout: float | None = None) -> None:
        """Send all of `data`. Raises TimeoutError when the other side does not take it in time."""
        timeout = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + timeout
        view = memoryview(data)
        while view:
            view = view[self._send_some(view, deadline - time.monotonic()) :]
        self.sent += len(data)

    def send_what_fits(self, data: bytes, timeout: float) -> int:
        """Send until done or until the other side has taken nothing for `timeout` seconds; how much went."""
        view, went = memoryview(data), 0
        while went < len(data):
            try:
                size = self._send_some(view[went : went + 65536], timeout)
            except TimeoutError:
                break
            went += size
            self.sent += size
        return went

    def send_what_fits_or_until_cut(self, data: bytes, timeout: float = 2.0) -> int:
        """As `send_what_fits`, and content if the other side has had enough and ends the connection."""
        before = self.sent
        with contextlib.suppress(OSError):  # what it said before it ended is still to be read
            self.send_what_fits(data, timeout)
        return self.sent - before

    def half_close(self) -> None:
        """Say FIN, over TLS close_notify before it; reading goes on."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End with an RST."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._drop()

    def cut(self) -> None:
        """End with a FIN, over TLS without the close_notify that belongs before it."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._drop()

    def _drop(self) -> None:
        if isinstance(self.sock, TlsSocket):
            self.sock.cut()
        else:
            self.sock.close()

    def close(self) -> None:
        """Close as most programs do: FIN, over TLS close_notify before it, or RST if unread bytes wait."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self.sock.close()

    def wake(self) -> None:
        """Make a thread that waits on this connection return at once."""
        with self._closing:
            if not self._closed:
                try:
                    self.sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    self._ended("rst")

    # A thread may read while another one writes: the time-out of a socket would be both's, so none is set here.

    def _receive(self, timeout: float) -> bytes:
        if isinstance(self.sock, TlsSocket):
            return self.sock.recv(262144, timeout)
        ready(self.sock, select.POLLIN, timeout)
        return self.sock.recv(262144, socket.MSG_DONTWAIT)

    def _send_some(self, data: memoryview, timeout: float) -> int:
        if isinstance(self.sock, TlsSocket):
            return self.sock.send(data, timeout)
        ready(self.sock, select.POLLOUT, timeout)
        with contextlib.suppress(BlockingIOError):  # another thread was quicker
            return self.sock.send(data, socket.MSG_DONTWAIT)
        return 0

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + patient(self.timeout if timeout is None else timeout)

    def _ended(self, how: End) -> bool:
        self.end = self.end or how
        self.ended_at = self.ended_at or time.monotonic()
        return False
