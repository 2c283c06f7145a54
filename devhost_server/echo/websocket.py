"""The WebSocket echo, on the sans-I/O core of the `websockets` package."""

from __future__ import annotations

import asyncio
import codecs
from typing import TYPE_CHECKING, cast

from websockets.exceptions import ProtocolError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request as Handshake
from websockets.protocol import OPEN, SEND_EOF
from websockets.server import ServerProtocol

from devhost_server.echo.answers import Request, origin_form, parameter, whole_number
from devhost_server.echo.state import State, address

if TYPE_CHECKING:
    from websockets.typing import Subprotocol

MAX_FRAME = 64 << 20
_LINGER_SECONDS = 1.0


class WebSocketEcho(asyncio.Protocol):
    """Sends every frame back as it came: same opcode, same fragmentation; pings and closes by RFC 6455.

    Frames are not gathered into messages, so a message may be of any size; one frame is at most `MAX_FRAME` bytes.
    """

    def __init__(self, state: State, transport: asyncio.Transport, request: Request) -> None:
        self._state = state
        self._transport = transport
        self._request = request
        self._wire = ServerProtocol(
            extensions=[ServerPerMessageDeflateFactory()],
            select_subprotocol=_first_subprotocol,
            max_size=(None, MAX_FRAME),
        )
        self._text: codecs.IncrementalDecoder | None = None  # set within a text message

    def __repr__(self) -> str:
        return f"<WebSocketEcho {address(self._transport.get_extra_info('peername'))} {self._wire.state.name.lower()}>"

    def begin(self) -> None:
        """Answer the handshake and echo what came behind it."""
        self._state.remember(self)
        self._wire.receive_data(self._request.head())
        self._react()
        # Not in one go: a frame parsed before the handshake is answered is decoded without its extensions, and the
        # answer to a ping would go out ahead of the 101.
        if self._request.early:
            self.data_received(bytes(self._request.early))

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what is under way: nobody is left to read it."""
        self._state.forget(self)

    def data_received(self, data: bytes) -> None:
        """Echo the frames that are complete."""
        self._wire.receive_data(data)
        self._react()

    def eof_received(self) -> bool:
        """Allow the transport to close."""
        self._wire.receive_eof()
        return False

    def pause_writing(self) -> None:
        """Hold answers back: the client does not read."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on answering."""
        self._transport.resume_reading()

    def stop(self) -> None:
        """Begin the closing handshake with 1001, going away."""
        self._close(1001, "the echo upstream stops")

    def abort(self) -> None:
        """Close now, whatever is under way."""
        self._transport.abort()

    def _react(self) -> None:
        for event in self._wire.events_received():
            if isinstance(event, Handshake):
                self._accept(event)
            elif isinstance(event, Frame) and self._wire.state is OPEN:
                self._echo(event)
        self._flush()

    def _accept(self, handshake: Handshake) -> None:
        self._wire.send_response(self._wire.accept(handshake))
        code = parameter(origin_form(self._request.target).partition(b"?")[2], "close")
        if code is None or self._wire.state is not OPEN:
            return
        try:
            self._close(whole_number("close", code, 1000, 4999), "as asked")
        except (ValueError, ProtocolError):
            self._close(1008, "not a close code an endpoint may send (RFC 6455 7.4)")

    def _echo(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT:
            self._text = codecs.getincrementaldecoder("utf-8")()
        if self._text is not None and frame.opcode in {Opcode.TEXT, Opcode.CONT} and not self._is_text(frame):
            self._wire.fail(1007, "text that is not UTF-8")
        elif frame.opcode is Opcode.TEXT:
            self._wire.send_text(frame.data, fin=frame.fin)
        elif frame.opcode is Opcode.BINARY:
            self._wire.send_binary(frame.data, fin=frame.fin)
        elif frame.opcode is Opcode.CONT:
            self._wire.send_continuation(frame.data, fin=frame.fin)

    def _is_text(self, frame: Frame) -> bool:
        """Check UTF-8 across the fragments of a message (RFC 6455 §8.1)."""
        decoder = cast("codecs.IncrementalDecoder", self._text)
        if frame.fin:
            self._text = None
        try:
            decoder.decode(bytes(frame.data), final=frame.fin)
        except UnicodeDecodeError:
            return False
        return True

    def _close(self, code: int, reason: str) -> None:
        Close(code, reason).check()
        if self._wire.state is OPEN:
            self._wire.send_close(code, reason)
            self._flush()

    def _flush(self) -> None:
        for data in self._wire.data_to_send():
            if data is SEND_EOF:
                # The peer closes next; if it goes on sending instead, it is cut off rather than waited for.
                self._transport.write_eof()
                self._state.loop.call_later(_LINGER_SECONDS, self._transport.close)
            else:
                self._transport.write(data)


def _first_subprotocol(_: ServerProtocol, offered: object) -> Subprotocol | None:
    """Agree to whatever the client prefers: an echo speaks every subprotocol equally well."""
    return next(iter(cast("list[Subprotocol]", offered)), None)
