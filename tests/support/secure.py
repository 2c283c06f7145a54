"""The server side of a TLS connection that can also end in the ways in which good manners forbid it to."""

import contextlib
import select
import socket
import ssl
import threading
import time

from tests.support.net import ready

_PIECE = 65536
_RECORD = 16384


class TlsSocket:
    """What `Wire` asks of a socket, over TLS; one thread may read while another one writes or ends it.

    Hence each call brings its own time-out, in seconds.
    A FIN without close_notify reads as an end too: `said_goodbye` tells the two apart.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.raw = sock
        self.said_goodbye = False
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._state = threading.RLock()  # of the TLS object, which no two threads may use at once
        self._order = threading.Lock()  # of what is sent
        self._unsent = bytearray()
        self._early = bytearray()  # read before our own close_notify, which may not be overtaken

    def handshake(self, timeout: float = 10.0) -> None:
        """Begin; raises OSError where the other side does not speak TLS or does not like our certificate."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush(timeout)
                self._take_in(timeout)
            else:
                self._flush(timeout)
                return

    def _flush(self, timeout: float) -> None:
        """Send what TLS has to say; what does not go in time goes with the next call."""
        deadline = time.monotonic() + timeout
        with self._order:
            with self._state:
                self._unsent += self._out.read()
            while self._unsent:
                ready(self.raw, select.POLLOUT, deadline - time.monotonic())
                del self._unsent[: self.raw.send(self._unsent[:_PIECE], socket.MSG_DONTWAIT)]

    def _take_in(self, timeout: float) -> None:
        """Wait for bytes and give them to TLS; the lock is not held while waiting."""
        ready(self.raw, select.POLLIN, timeout)
        data = self.raw.recv(_PIECE, socket.MSG_DONTWAIT)
        with self._state:
            if data:
                self._in.write(data)
            else:
                self._in.write_eof()

    def recv(self, size: int, timeout: float) -> bytes:
        """As a socket's. Raises OSError for what is no TLS."""
        if self._early:
            data = bytes(self._early)
            self._early.clear()
            return data
        while True:
            try:
                with self._state:
                    data = self._tls.read(size)
            except ssl.SSLWantReadError:
                self._take_in(timeout)
            except ssl.SSLZeroReturnError:
                self.said_goodbye = True
                return b""
            except ssl.SSLEOFError:
                return b""
            else:
                self.said_goodbye |= not data
                return data

    def send(self, data: bytes | memoryview, timeout: float) -> int:
        """Send a record. After a TimeoutError it is under way all the same."""
        self._flush(timeout)
        with self._state:
            size = self._tls.write(bytes(data[:_RECORD]))
        self._flush(timeout)
        return size

    def shutdown(self, how: int) -> None:
        """End our side with close_notify and FIN, or drop the connection where both sides are to end."""
        if how == socket.SHUT_WR:
            self._say_goodbye()
        self.raw.shutdown(how)

    def _say_goodbye(self) -> None:
        with self._state, contextlib.suppress(ssl.SSLError):
            with contextlib.suppress(ssl.SSLError):
                while data := self._tls.read(_PIECE):
                    self._early += data
            self._tls.unwrap()
        self._flush(2.0)

    def setsockopt(self, *arguments: int | bytes) -> None:
        """As a socket's."""
        self.raw.setsockopt(*arguments)  # type: ignore[call-overload]

    def getsockname(self) -> tuple[str, int]:
        """As a socket's."""
        name: tuple[str, int] = self.raw.getsockname()
        return name

    def fileno(self) -> int:
        """As a socket's."""
        return self.raw.fileno()

    def close(self) -> None:
        """Close as servers do: close_notify, then FIN, or RST if unread bytes wait."""
        with contextlib.suppress(OSError):
            if self.raw.fileno() >= 0:
                self._say_goodbye()
        self.raw.close()

    def cut(self) -> None:
        """Close without close_notify."""
        self.raw.close()
