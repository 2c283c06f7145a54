"""Noticing that a peer has reset a connection from which nothing is being read.

An event loop that does not read from a socket does not watch it either: a client that leaves while its upload waits for
a slow target would be noticed when the target's time is up, and the target be blamed. So while reading is paused, the
socket is looked at from here, once a tick. Only a reset counts: before a FIN, and even where both ways are shut, there
may be data that has not been read.
"""

import asyncio
import select


class Hangups:
    """The connections of one worker that are not being read from at the moment."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._transports: dict[int, asyncio.Transport] = {}  # by descriptor
        self._descriptors: dict[asyncio.Transport, int] = {}

    def watch(self, transport: asyncio.Transport) -> None:
        """Begin to look at a connection whose reading has been paused."""
        descriptor = transport.get_extra_info("socket").fileno()
        if descriptor >= 0:
            self._transports[descriptor] = transport
            self._descriptors[transport] = descriptor
            self._poll.register(descriptor, 0)  # POLLERR need not be asked for

    def forget(self, transport: asyncio.Transport) -> None:
        """Stop looking: reading goes on, or the connection is gone."""
        descriptor = self._descriptors.pop(transport, -1)
        if self._transports.get(descriptor) is transport:
            del self._transports[descriptor]
            self._poll.unregister(descriptor)

    def look(self) -> None:
        """Abort what has been reset; its protocol is told by the transport, as ever."""
        if not self._transports:
            return
        for descriptor, events in self._poll.poll(0):
            transport = self._transports[descriptor]
            if events & select.POLLERR:
                self.forget(transport)
                transport.abort()
