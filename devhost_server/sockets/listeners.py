"""Listening sockets, made by the master so that a port in use is known before anything is forked."""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Collection, Iterable
from typing import Final

from devhost_server.options import Bind

# What the kernel may hold for us; it is cut to net.core.somaxconn.
BACKLOG: Final = 4096


class ListenError(Exception):
    """An address cannot be listened on; the text is a sentence for whoever starts the gateway."""


def listen(bind: Bind, *, private: bool = False) -> socket.socket:
    """Return a listening, non-blocking socket for an address. Raises `ListenError`.

    With `private`, a unix socket is its owner's alone (mode 0600), and so from the moment it is there.
    """
    try:
        listener = _unix(bind.path, private) if bind.path is not None else _tcp(bind)
        try:
            listener.listen(BACKLOG)
        except OSError:  # another socket that was bound first has begun to listen in between
            listener.close()
            raise
    except OSError as error:
        raise ListenError(_explain(bind, error)) from None
    listener.setblocking(False)
    return listener


def listen_all(binds: Iterable[Bind], private: Collection[Bind] = ()) -> list[socket.socket]:
    """Listen on every address or, if one cannot be had, on none; see `listen` on `private`. Raises `ListenError`."""
    listeners: list[socket.socket] = []
    try:
        for bind in binds:
            listeners.append(listen(bind, private=bind in private))  # noqa: PERF401 -- those made so far are given up if one fails
    except ListenError:
        for listener in listeners:
            give_up(listener)
        raise
    return listeners


def give_up(listener: socket.socket) -> None:
    """Close a listener for good; the path of a unix socket is removed. For the master alone: its children `close`."""
    if listener.fileno() < 0:
        return
    name = listener.getsockname()
    listener.close()
    if isinstance(name, str):
        with contextlib.suppress(OSError):
            os.unlink(name)


def _tcp(bind: Bind) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(
        bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        if family == socket.AF_INET6:
            # [::] means every address, of either family, as it does to Go and Caddy.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, bind.host != "::")
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _unix(path: str, private: bool) -> socket.socket:
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Not chmod(2) afterwards: somebody could connect in between. The master has no other thread that makes files.
    mask = os.umask(0o177) if private else None
    try:
        listener.bind(path)
    except OSError:
        listener.close()
        raise
    finally:
        if mask is not None:
            os.umask(mask)
    return listener


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on; what else may be there is left alone, and binding fails."""
    if not _is_socket(path):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a listener whose queue is full would let us wait
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                os.unlink(path)
        except OSError:
            return


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _explain(bind: Bind, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"cannot listen on {bind}: the name {bind.host} does not resolve"
    if error.errno == errno.EADDRINUSE and bind.path is not None and not _is_socket(bind.path):
        return f"cannot listen on {bind}: the path exists and is not a socket; remove it or bind to another"
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {bind}: the address is in use; stop what listens there or bind to another"
    if error.errno == errno.EACCES and bind.path is None and bind.port < 1024:
        return (
            f"cannot listen on {bind}: ports below 1024 need the right to bind them; run as root, give the program "
            "CAP_NET_BIND_SERVICE, or bind to a port from 1024 on"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"cannot listen on {bind}: this machine has no such address"
    return f"cannot listen on {bind}: {error.strerror}"
