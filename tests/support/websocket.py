"""Just enough of RFC 6455 to build and read frames by hand, so that a test sees the bytes a tunnel must not touch."""

import base64
import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from tests.support.messages import request, response
from tests.support.upstream import Received, UpstreamConnection
from tests.support.wire import Wire

KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_for(key: str) -> str:
    """The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (RFC 6455 §4.2.2)."""
    return base64.b64encode(hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()).decode()


def handshake(target: str = "/socket", headers: tuple[tuple[str, str], ...] = (), **options: object) -> bytes:
    """A client's opening handshake; `headers` are added behind the required ones."""
    required = (
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    )
    return request("GET", target, (*required, *headers), **options)  # type: ignore[arg-type]


def acceptance(received: Received, headers: tuple[tuple[str, str], ...] = ()) -> bytes:
    """The 101 that answers a handshake."""
    accept = accept_for(received.headers.get("sec-websocket-key"))
    lines = (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept), *headers)
    return response(101, lines, None, reason="Switching Protocols")


@dataclass(frozen=True)
class Frame:
    """One frame, unmasked."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0
    masked: bool = False

    def encode(self, mask: bytes | None = None) -> bytes:
        """The frame's bytes; clients give a `mask` of four bytes."""
        first = (self.fin << 7) | (self.rsv << 4) | self.opcode
        size, flag = len(self.payload), 0x80 if mask else 0
        if size < 126:
            head = struct.pack("!BB", first, flag | size)
        elif size < 65536:
            head = struct.pack("!BBH", first, flag | 126, size)
        else:
            head = struct.pack("!BBQ", first, flag | 127, size)
        return head + (mask + apply_mask(self.payload, mask) if mask else self.payload)


def close_payload(code: int, reason: str = "") -> bytes:
    """The payload of a Close frame."""
    return struct.pack("!H", code) + reason.encode()


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    """XOR with the repeated mask, fast enough for megabytes."""
    if not payload:
        return b""
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(len(payload))


def read_frame(wire: Wire, timeout: float | None = None) -> Frame:
    """The next frame, unmasked if it was masked."""
    first, second = wire.read_exactly(2, timeout)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", wire.read_exactly(2, timeout))
    elif size == 127:
        (size,) = struct.unpack("!Q", wire.read_exactly(8, timeout))
    mask = wire.read_exactly(4, timeout) if second & 0x80 else b""
    payload = wire.read_exactly(size, timeout)
    return Frame(
        first & 0x0F, apply_mask(payload, mask) if mask else payload, bool(first & 0x80), (first >> 4) & 7, bool(mask)
    )


def echo_server(connection: UpstreamConnection, received: Received) -> None:
    """Accept the handshake, then echo data, answer pings and answer a Close with the same Close and a FIN."""
    connection.send(acceptance(received))
    while True:
        frame = read_frame(connection, 60)
        if frame.opcode == CLOSE:
            connection.send(Frame(CLOSE, frame.payload).encode())
            connection.finish()
            return
        opcode = PONG if frame.opcode == PING else frame.opcode
        connection.send(Frame(opcode, frame.payload, frame.fin, frame.rsv).encode(), timeout=20)
