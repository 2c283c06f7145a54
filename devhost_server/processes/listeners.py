"""The listeners of a gateway: the public ones for workers, and one each for the companions."""

import socket
from dataclasses import dataclass
from typing import Self

from devhost_server.config import Settings
from devhost_server.options import Bind, parse_bind
from devhost_server.sockets.listeners import listen_all


@dataclass(frozen=True, slots=True)
class Listeners:
    """The listening sockets of a gateway. Each process closes those of the others."""

    public: tuple[socket.socket, ...]
    admin: socket.socket | None
    echo: socket.socket | None

    @classmethod
    def listen(cls, settings: Settings) -> Self:
        """Listen on every address or on none. Raises `ListenError`."""
        public = settings.server.bind
        admin = settings.admin.bind
        echo_bind = settings.echo.bind if settings.echo is not None else None
        others = [bind for bind in (admin, echo_bind) if bind is not None]
        private = [] if admin is None else [parse_bind(admin)]
        listeners = listen_all(map(parse_bind, (*public, *others)), private)
        return cls(
            tuple(listeners[: len(public)]),
            listeners[len(public)] if admin is not None else None,
            listeners[-1] if echo_bind is not None else None,
        )

    @property
    def private(self) -> tuple[socket.socket, ...]:
        """Return the listeners that are not for the workers."""
        return tuple(listener for listener in (self.admin, self.echo) if listener is not None)

    def close_but(self, mine: socket.socket | None) -> None:
        """Close every listener but one, in this process."""
        for listener in (*self.public, *self.private):
            if listener is not mine:
                listener.close()


def address_of(listener: socket.socket) -> str:
    """Return the address of a listener as text for a person."""
    name = listener.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    return Bind(host=name[0], port=name[1]).described
