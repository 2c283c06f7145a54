"""Importing this resolves every name under .localhost to this machine, as /etc/hosts would for a real client."""

import functools
import socket

_getaddrinfo = socket.getaddrinfo


@functools.wraps(_getaddrinfo)
def _resolve(host, *arguments, **options):
    name = host.decode() if isinstance(host, bytes) else host
    return _getaddrinfo("127.0.0.1" if name and name.endswith(".localhost") else host, *arguments, **options)


socket.getaddrinfo = _resolve
