"""The end of a connection over TLS, as far as the event loop's transports do not see to it themselves.

They have no `write_eof`; they give up what has come and was not read when the other side ends; and what the kernel has
behind a reset they do not decrypt. Those of uvloop are meant; of others, less can be said.
"""

import asyncio
import contextlib
import os
import ssl
from typing import Final

_PIECE: Final = 256 * 1024


def tls_of(transport: asyncio.BaseTransport) -> ssl.SSLObject | None:
    """Return what encrypts a connection; None if nothing does."""
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    return tls


def remains(tls: ssl.SSLObject) -> tuple[bytes, bool]:
    """Return what has come over a connection that is lost and was not read, and whether its peer ended it properly.

    A transport whose reading is paused reads on, up to 256 KiB, which is all there can be; a FIN ends it without a word
    about that. The proper end is close_notify: a FIN alone can be anybody's (RFC 9112 §9.8).
    """
    pieces: list[bytes] = []
    try:
        while data := tls.read(_PIECE):
            pieces.append(data)
    except ssl.SSLZeroReturnError:
        clean = True
    except (ssl.SSLError, ValueError):
        clean = False
    else:
        clean = True
    return b"".join(pieces), clean


def read_on(transport: asyncio.BaseTransport, descriptor: int) -> None:
    """Feed TLS what the kernel still holds of a connection that its transport has closed.

    `descriptor` is of the same socket and has outlived the transport's own.
    """
    protocol = transport.get_extra_info("uvloop.sslproto")
    if protocol is None:
        return
    with contextlib.suppress(OSError):
        while data := os.read(descriptor, 64 * 1024):
            protocol.get_buffer(len(data))[: len(data)] = data
            protocol.buffer_updated(len(data))


def end_writing(transport: asyncio.WriteTransport, tls: ssl.SSLObject) -> None:
    """Send close_notify after what was written, and go on reading (RFC 8446 §6.1).

    Everything that has come must have been read: OpenSSL takes what it finds behind its own close_notify for an error.
    """
    with contextlib.suppress(ssl.SSLError, ValueError):  # the other side's is still to come
        tls.unwrap()
    transport.writelines(())  # sends what TLS has to say
