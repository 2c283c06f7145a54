"""Ending a TCP connection by a reset instead of a FIN."""

import asyncio
import contextlib
import os
import socket
import struct
from typing import Final

# struct linger: on, for no time at all. What is closed then is reset.
_AT_ONCE: Final = struct.pack("ii", 1, 0)


def reset_when_closed(transport: asyncio.Transport) -> None:
    """Have the kernel reset a TCP connection when its transport is closed next; others stay as they are."""
    sock = transport.get_extra_info("socket")
    if sock is None or transport.is_closing():
        return
    # The event loop's socket object may not be told options; a second descriptor of the same socket may.
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as same:
        if same.family != socket.AF_UNIX:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
