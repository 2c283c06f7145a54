"""Whether a peer takes what is written to it."""

import asyncio
import fcntl
import struct
import termios
from typing import Final

from devhost_server.timing.deadlines import TICK

# How often a peer is looked at: so much later may it be noticed that it has stalled. The look is a system call.
_STEPS: Final = 32
_STEP_SECONDS: Final = 0.25


class Progress:
    """Looks at what waits for a peer, in our buffer and in the kernel's.

    The peer has stalled once it has taken nothing for `patience` seconds. A byte that it takes is noticed at the next
    look, which the caller has to take every `step` seconds; so that is how much later than asked it may be said.
    """

    __slots__ = ("_patience", "_since", "_transport", "_unsent", "moved", "step")

    def __init__(self, transport: asyncio.Transport, patience: float, now: float) -> None:
        self.step = min(max(patience / _STEPS, TICK), _STEP_SECONDS, patience)
        self._transport = transport
        self._patience = patience
        self._since = now
        self._unsent = unsent(transport)
        self.moved = 0  # how much less waited at the last look than at the one before

    def has_stalled(self, now: float) -> bool:
        """Look whether the peer has taken anything; True if it has not for too long."""
        before, self._unsent = self._unsent, unsent(self._transport)
        self.moved = sum(before) - sum(self._unsent)
        if self._unsent != before:
            self._since = now
        return now - self._since >= self._patience


def unsent(transport: asyncio.Transport) -> tuple[int, int]:
    """Return what waits for a peer: bytes in our buffer, and bytes in the kernel's that it has not confirmed."""
    size = transport.get_write_buffer_size()
    socket = transport.get_extra_info("socket")
    try:
        queued = fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, b"\0\0\0\0") if socket is not None else b"\0\0\0\0"
    except OSError:
        return size, 0
    return size, struct.unpack("i", queued)[0]
