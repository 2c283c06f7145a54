"""Ports: free ones, ones that refuse, and ones that swallow connection attempts."""

import contextlib
import errno
import itertools
import os
import select
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

# Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes a port between the moment it
# is chosen and the moment the process under test binds it.
_FIRST, _LAST = 20000, 31999


@dataclass
class _Ports:
    """Hands out each port once in a process; processes start at different places of the range."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    candidates: Iterator[int] = field(init=False)

    def __post_init__(self) -> None:
        start = _FIRST + (os.getpid() * 97) % (_LAST - _FIRST)
        self.candidates = itertools.cycle([*range(start, _LAST), *range(_FIRST, start)])

    def take(self) -> int:
        with self.lock:
            return next(port for port in self.candidates if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


_PORTS = _Ports()


def free_port() -> int:
    """A TCP port that nothing listens on and that is handed out only once in this process."""
    return _PORTS.take()


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """A port that refuses connections for as long as the block runs: bound, hence nobody else's, and not listening."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@contextlib.contextmanager
def blackhole() -> Iterator[int]:
    """A port whose connection attempts are never answered, as behind a firewall that drops.

    A listener nobody accepts from, with its queue full: Linux then drops further SYNs silently.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def ready(sock: socket.socket, event: int, timeout: float | None) -> None:
    """Wait until a socket is ready for `select.POLLIN` or `POLLOUT`. Raises TimeoutError, and OSError if it is closed.

    Unlike a time-out of the socket, this one is the caller's alone.
    """
    descriptor = sock.fileno()
    if descriptor < 0:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    waiting = select.poll()
    waiting.register(descriptor, event)
    if not waiting.poll(None if timeout is None else max(timeout, 0) * 1000):
        raise TimeoutError("timed out")


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts connections on the port now."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
