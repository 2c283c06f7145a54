"""Accepting connections so that the workers, which share the listeners, get their shares.

Left to itself, whichever worker wakes first accepts everything that is there, and what keeps alive stays with it: of 64
connections opened at once one of two workers was seen with 60. So a worker takes a few at a time, and one that has
clearly more than the least loaded lets the others go first for a moment.
"""

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_log = logging.getLogger("devhost_server.processes.worker")

# Connections taken at once. Small, so that a burst is shared; a system call each either way.
_BATCH: Final = 4
# How many more than the least loaded worker this one may have before it lets the others go first.
_MARGIN: Final = 4
# How long they are let: an idle worker wakes in a tenth of that, and a busy one is not waited for longer.
_YIELD_SECONDS: Final = 0.002
# Out of descriptors or memory: until something is closed, trying again is of no use.
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_EXHAUSTED_SECONDS: Final = 0.1
# What accept(2) says of a connection that ended before we came to it.
_PASSING: Final = frozenset((errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR, errno.ECONNRESET))
_COMPLAINT_SECONDS: Final = 10.0


class Acceptor:
    """Accepts on one listener. `load` gives the connections of this worker and of the least loaded one."""

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        load: Callable[[], tuple[int, int]],
    ) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._handing: set[asyncio.Task[None]] = set()
        self._resumes: asyncio.TimerHandle | None = None
        self._has_yielded = False
        self._stopped = False
        self._complained = 0.0

    def start(self) -> None:
        """Begin to accept."""
        self._loop.add_reader(self._listener.fileno(), self._ready)

    async def stop(self) -> None:
        """Take what the kernel has accepted for us already, then close: closing alone would reset those connections."""
        self._stopped = True
        if self._resumes is not None:
            self._resumes.cancel()
        self._loop.remove_reader(self._listener.fileno())
        while self._take():
            pass
        self._listener.close()
        if self._handing:
            await asyncio.wait(self._handing)

    def _ready(self) -> None:
        try:
            self._accept_some()
        except Exception:
            # The listener stays readable: without a pause, one error would be a stream of them.
            _log.exception("accepting failed")
            self._pause(_EXHAUSTED_SECONDS)

    def _accept_some(self) -> None:
        mine, least = self._load()
        if mine > least + _MARGIN and not self._has_yielded:
            self._pause(_YIELD_SECONDS)
            return
        self._has_yielded = False
        for _ in range(_BATCH):
            if not self._take():
                return

    def _take(self) -> bool:
        """Accept one connection; False if there is none, or none can be taken."""
        try:
            accepted, _ = self._listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._complain(error)
                self._pause(_EXHAUSTED_SECONDS)
                return False
            return error.errno in _PASSING
        accepted.setblocking(False)
        task = self._loop.create_task(self._hand_over(accepted))
        self._handing.add(task)
        task.add_done_callback(self._handing.discard)
        return True

    async def _hand_over(self, accepted: socket.socket) -> None:
        with suppress(OSError):
            await self._loop.connect_accepted_socket(self._make_protocol, accepted)

    def _pause(self, seconds: float) -> None:
        if self._stopped:
            return
        self._loop.remove_reader(self._listener.fileno())
        self._resumes = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._has_yielded = True
        self._resumes = None
        self.start()

    def _complain(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._complained > _COMPLAINT_SECONDS:
            self._complained = now
            _log.error("cannot accept connections: %s; raise the limit of open files", error.strerror)
