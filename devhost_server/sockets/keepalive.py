"""TCP keep-alive where a connection may be silent for long: the other end may be gone without a word."""

import os
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

# A peer that is gone is noticed after two minutes: NAT gateways forget a silent connection after five or more.
_OPTIONS: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


def keep_alive(transport: "asyncio.BaseTransport") -> None:
    """Have the kernel ask a silent peer whether it is still there. Unix sockets need no asking."""
    wrapped = transport.get_extra_info("socket")
    if wrapped is None or wrapped.family not in (socket.AF_INET, socket.AF_INET6):
        return
    try:
        # uvloop does not let options be set on what it gives out.
        with socket.socket(fileno=os.dup(wrapped.fileno())) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _OPTIONS:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:
        return  # it is closed already
