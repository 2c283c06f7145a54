"""The address of a target: opening connections to it, and saying why that failed."""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from devhost_server.failures import (
    CONNECT_FAILED,
    CONNECT_REFUSED,
    CONNECT_TIMEOUT,
    DNS_FAILED,
    OUT_OF_PORTS,
    TLS_FAILED,
    Fault,
)
from devhost_server.timing.deadlines import HELD_UP
from devhost_server.upstream import tls
from devhost_server.upstream.options import TargetOptions

_log = logging.getLogger("devhost_server.upstream")

# What is missing then is ours, not the target's: local ports or addresses, descriptors, memory.
_OURS: Final = frozenset(
    (errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRINUSE)
)
LOOPBACKS: Final = ("127.0.0.1", "::1")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def _end(limit: asyncio.Timeout, due: float) -> None:
    """Let a wait end that was over at `due`, or later where it is we who were late: the target may have answered then.

    An event loop looks at its timers before its sockets.
    """
    now = asyncio.get_running_loop().time()
    late = now - due
    limit.reschedule(now + late if late > HELD_UP else now)


class Dialler:
    """Connects to one server; `address` is where it was reached last, or is tried first.

    A target that was written as a port, or as localhost, may listen on either loopback address: what listens on the
    one alone refuses at the other, without a delay. The one that answered is tried first from then on.
    """

    __slots__ = ("_hosts", "_name", "_tls", "address", "port", "shown", "unix_path")

    def __init__(self, options: TargetOptions) -> None:
        parts = urlsplit(options.url)
        self.unix_path = parts.path if parts.scheme == "unix" else None
        self.port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
        self._name = parts.hostname or ""
        self._hosts = LOOPBACKS if options.both_loopbacks else (self._name,)
        self._tls = tls.client_context() if parts.scheme == "https" else None
        self.address = f"unix:{parts.path}" if self.unix_path is not None else self._address(self._hosts[0])
        self.shown = " and ".join(map(self._address, self._hosts)) if options.both_loopbacks else self.address

    def _address(self, host: str) -> str:
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    async def dial(self, protocol: Callable[[], asyncio.BaseProtocol], patience: float) -> None:
        """Connect within `patience` seconds, TLS included.

        Raises `OSError`, of which `TimeoutError`, gaierror and SSLError are kinds.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as limit:
            timer = loop.call_later(patience, _end, limit, loop.time() + patience)
            try:
                if self.unix_path is not None:
                    await loop.create_unix_connection(protocol, self.unix_path)
                elif len(self._hosts) == 1:
                    await self._dial_host(protocol, self._hosts[0])
                else:
                    await self._dial_either(protocol, *self._hosts)
            finally:
                timer.cancel()

    async def _dial_either(self, protocol: Callable[[], asyncio.BaseProtocol], first: str, other: str) -> None:
        try:
            await self._dial_host(protocol, first)
        except ConnectionRefusedError as refused:
            try:
                await self._dial_host(protocol, other)
            except OSError as error:
                # A machine without IPv6 has not even the address: the refusal says more.
                raise (refused if error.errno == errno.EADDRNOTAVAIL else error) from None
            self._hosts, self.address = (other, first), self._address(other)

    async def _dial_host(self, protocol: Callable[[], asyncio.BaseProtocol], host: str) -> None:
        loop = asyncio.get_running_loop()
        if self._tls is None:
            await loop.create_connection(protocol, host, self.port)
        else:
            await loop.create_connection(protocol, host, self.port, ssl=self._tls, server_hostname=self._name)

    def explain(self, error: Exception, seconds: float, patience: float) -> Fault:
        """Return what an error of `dial` means; it came after `seconds`, of `patience` at most."""
        where, after = self.shown, f"after {seconds * 1000:.0f} ms"
        if isinstance(error, TimeoutError):
            missing = "accept a connection" if self._tls is None else "accept a connection and answer in TLS"
            hint = "" if self._tls is None else "; if it speaks no TLS, write http://"
            return CONNECT_TIMEOUT(f"{where} did not {missing} within {patience:g} s{hint}.")
        if isinstance(error, socket.gaierror):
            return DNS_FAILED(f"The name {self._name} does not resolve: {error.strerror}.")
        if isinstance(error, ConnectionRefusedError | FileNotFoundError):
            how = "is not there" if isinstance(error, FileNotFoundError) else f"refused the connection {after}"
            return CONNECT_REFUSED(f"{where} {how}: nothing listens there.")
        handshake = self._explain_handshake(error)
        if handshake is not None:
            return TLS_FAILED(f"The TLS handshake with {where} failed: {handshake}.")
        return self._explain_rest(error, f"{where} could not be connected to {after}")

    def _explain_handshake(self, error: Exception) -> str | None:
        if isinstance(error, ssl.SSLError):
            return tls.explain(error, self._name)
        if self._tls is not None and isinstance(error, ConnectionResetError | ConnectionAbortedError):
            return tls.CLOSED
        return None

    def _explain_rest(self, error: Exception, what: str) -> Fault:
        if not isinstance(error, OSError):
            _log.error("%s: an error that no case is known of", what, exc_info=error)
            return CONNECT_FAILED(f"{what}: {error}.")
        failure = OUT_OF_PORTS if error.errno in _OURS else CONNECT_FAILED
        return failure(f"{what}: {error.strerror or error}.")
