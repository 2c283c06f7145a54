"""WebSockets: the echo that the proxies talk to, and the clients that send a message and wait for its echo.

Both are as bare as Python gets on uvloop, so that a core is enough for them beside a proxy on another.
`python -m loadtests.comparing.websocket echo PORT`, and `load PORT CONNECTIONS SIZE SECONDS`, which prints one JSON
object.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import json
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from typing import cast

import uvloop

from .percentiles import summary

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_KEY = base64.b64encode(bytes(range(16)))
_CLOSE, _PING, _PONG, _BINARY = 0x8, 0x9, 0xA, 0x2
_FIN = 0x80
_PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_CONNECT_SECONDS = 10.0


def frame(opcode: int, payload: bytes, mask: bytes = b"") -> bytes:
    """One unfragmented frame (RFC 6455 §5.2); a client has to give a mask of four bytes."""
    size, masked = len(payload), 0x80 if mask else 0
    if size < 126:
        head = struct.pack("!BB", _FIN | opcode, masked | size)
    elif size < 65536:
        head = struct.pack("!BBH", _FIN | opcode, masked | 126, size)
    else:
        head = struct.pack("!BBQ", _FIN | opcode, masked | 127, size)
    return head + mask + (xor(payload, mask) if mask else payload)


def xor(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask; both are the same (RFC 6455 §5.3)."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


def take_frames(buffer: bytearray) -> Iterator[tuple[int, bytes]]:
    """Take the whole frames out of a buffer: first byte and payload, unmasked."""
    while len(buffer) >= 2:
        size, at = buffer[1] & 0x7F, 2
        if size == 126:
            size, at = int.from_bytes(buffer[2:4]), 4
        elif size == 127:
            size, at = int.from_bytes(buffer[2:10]), 10
        masked = 4 if buffer[1] & 0x80 else 0
        end = at + masked + size
        if len(buffer) < end:
            return
        first, mask, payload = buffer[0], bytes(buffer[at : at + masked]), bytes(buffer[at + masked : end])
        del buffer[:end]
        yield first, xor(payload, mask) if mask else payload


def accept_of(key: bytes) -> bytes:
    """What a server answers to a key (RFC 6455 §4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID).digest())


class Echo(asyncio.Protocol):
    """Sends every data frame back unmasked; answers a request without upgrade with an empty 200."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._open = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with the handshake."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer the handshake, then frames."""
        self._buffer += data
        if not self._open and not self._handshake():
            return
        for first, payload in take_frames(self._buffer):
            opcode = first & 0x0F
            self._transport.write(frame(_PONG if opcode == _PING else opcode, payload))
            if opcode == _CLOSE:
                self._transport.close()

    def stop(self) -> None:
        """Leave at once."""
        self._transport.abort()

    def _handshake(self) -> bool:
        head, end, _ = bytes(self._buffer).partition(b"\r\n\r\n")
        if not end:
            return False
        del self._buffer[: len(head) + 4]
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        if b"sec-websocket-key" not in fields:
            self._transport.write(_PLAIN)
            self._transport.close()
            return False
        lines = (
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + accept_of(fields[b"sec-websocket-key"]),
        )
        self._transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
        self._open = True
        return True


class Load:
    """What the clients of one load share. Set `until` once all are open."""

    def __init__(self, size: int) -> None:
        payload = os.urandom(size)
        self.message = frame(_BINARY, payload, os.urandom(4))
        self.echo = frame(_BINARY, payload)
        self.latencies: list[float] = []
        self.until = 0.0
        self.errors = 0
        self.lost = 0

    @property
    def handshake(self) -> bytes:
        """The request of every client."""
        lines = (
            b"GET /ws HTTP/1.1",
            b"Host: bench.test",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Key: " + _KEY,
            b"Sec-WebSocket-Version: 13",
        )
        return b"\r\n".join(lines) + b"\r\n\r\n"


class Client(asyncio.Protocol):
    """Sends the message, waits for its echo, compares, and sends it again."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = bytearray()
        self._sent_at = 0.0
        self._transport: asyncio.Transport
        self.open = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._load.handshake)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count: no connection should end before `finish`."""
        if not self.open.done():
            self.open.set_exception(ConnectionError(f"no upgrade: {bytes(self._received[:100])!r}"))
        self._load.lost += 1

    def data_received(self, data: bytes) -> None:
        """Take the answer to the handshake, then echoes."""
        if not self.open.done():
            self._upgraded(data)
            return
        load = self._load
        if self._received or len(data) != len(load.echo):
            self._received += data
            if len(self._received) < len(load.echo):
                return
            data = bytes(self._received)
            self._received.clear()
        now = time.perf_counter()
        load.latencies.append(now - self._sent_at)
        load.errors += data != load.echo
        if now < load.until:
            self.send()

    def _upgraded(self, data: bytes) -> None:
        self._received += data
        if b"\r\n\r\n" not in self._received:
            return
        right = self._received.startswith(b"HTTP/1.1 101") and accept_of(_KEY) in self._received
        if right:
            self._received.clear()
            self.open.set_result(None)
        else:
            self._transport.close()

    def send(self) -> None:
        """Send the message."""
        self._sent_at = time.perf_counter()
        self._transport.write(self._load.message)

    def finish(self) -> None:
        """Leave without a closing handshake: nobody measures it."""
        self._transport.abort()


async def make_load(port: int, connections: int, size: int, seconds: float) -> dict[str, float]:
    """Open the connections, load them, and sum up. Raises `OSError` if one cannot be opened."""
    loop, load = asyncio.get_running_loop(), Load(size)
    clients = [(await loop.create_connection(lambda: Client(load), "127.0.0.1", port))[1] for _ in range(connections)]
    try:
        return await _loaded(load, clients, seconds)
    finally:
        for client in clients:
            client.finish()
        await asyncio.sleep(0)  # the turn in which they are closed


async def _loaded(load: Load, clients: Sequence[Client], seconds: float) -> dict[str, float]:
    await asyncio.wait_for(asyncio.gather(*(client.open for client in clients)), _CONNECT_SECONDS)
    began = time.perf_counter()
    load.until = began + seconds
    for client in clients:
        client.send()
    await asyncio.sleep(seconds)
    measured = {"requests": len(load.latencies), "seconds": time.perf_counter() - began}
    return {**measured, "errors": load.errors + load.lost, **summary(load.latencies)}


async def _serve_echo(port: int) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(Echo, "127.0.0.1", port, backlog=8192)
    await stop.wait()
    server.close()


def main(arguments: list[str]) -> None:
    """Run as a process of its own."""
    gc.disable()  # nothing here makes cycles worth a pause
    verb, port, *numbers = arguments
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if verb == "echo":
            runner.run(_serve_echo(int(port)))
            return
        connections, size, seconds = numbers
        try:
            print(json.dumps(runner.run(make_load(int(port), int(connections), int(size), float(seconds)))))
        except OSError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
