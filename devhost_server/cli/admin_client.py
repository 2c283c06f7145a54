"""A client of the admin listener."""

import json
import socket
from dataclasses import dataclass
from typing import Any

from devhost_server.options import Bind


@dataclass(frozen=True)
class AdminClient:
    """A client of one admin listener. `token` is sent with each request, unless it is None."""

    bind: Bind
    token: str | None

    def call(self, method: str, path: str, timeout: float) -> tuple[int, Any]:
        """Send one request; return the status and the decoded JSON of the body, None if it is empty.

        Each wait in it is at most `timeout` seconds long. Raises `OSError` if nothing answers, and `ValueError` if what
        answers is not JSON over HTTP.
        """
        from http.client import HTTPConnection, HTTPException  # noqa: PLC0415 - ssl and email: most verbs need neither

        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {self.token}"} if self.token else {})
        connection = HTTPConnection(*self._host_field, timeout=timeout)
        connection.sock = self._connect(timeout)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            body = response.read()
        except HTTPException as error:
            raise ValueError(f"it does not speak HTTP ({error or type(error).__name__})") from None
        finally:
            connection.close()
        return response.status, json.loads(body) if body else None

    def _connect(self, timeout: float) -> socket.socket:
        if self.bind.path is None:
            return socket.create_connection((self.reachable_host, self.bind.port), timeout)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(timeout)
            connection.connect(self.bind.path)
        except OSError:
            connection.close()
            raise
        return connection

    @property
    def _host_field(self) -> tuple[str, int | None]:
        """Return host and port for the Host field. Behind a unix socket, no name would say more than localhost."""
        return ("localhost", None) if self.bind.path is not None else (self.reachable_host, self.bind.port)

    @property
    def reachable_host(self) -> str:
        """Return the host to connect to. A listener on every address is also on loopback."""
        if not self.bind.is_wildcard:
            return self.bind.host
        return "::1" if ":" in self.bind.host else "127.0.0.1"
