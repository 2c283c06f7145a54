"""After 101: bytes both ways until either side ends.

Frames are not parsed: compression, fragmentation, close codes and messages of any size pass as the bytes they are. Of
WebSocket only the boundaries between frames are followed, by the lengths in their headers, so that a drain can put a
Close 1001 between two of them instead of into the middle of one.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from devhost_server.sockets import goodbye
from devhost_server.timing.deadlines import NEVER, Wheel
from devhost_server.timing.hangups import Hangups
from devhost_server.timing.progress import Progress

# RFC 6455 §7.4.1: 1001, going away. From the server unmasked; towards the target masked (§5.3), here with a zero mask.
_CLOSE_TO_CLIENT: Final = b"\x88\x02\x03\xe9"
_CLOSE_TO_TARGET: Final = b"\x88\x82\x00\x00\x00\x00\x03\xe9"
# How long the other side may still take for its half once one side has ended, and for its Close after ours.
_HALF_CLOSED_SECONDS: Final = 60.0
_CLOSING_SECONDS: Final = 2.0
_WRITE_HIGH: Final = 128 * 1024


class FrameFollower:
    """Follows the boundaries of WebSocket messages (RFC 6455 §5.2) in a stream of bytes.

    A Close may come between two fragments of a message (§5.4), but some readers take it for an error there.
    """

    __slots__ = ("_fragmented", "_header", "_left")

    def __init__(self) -> None:
        self._left = 0  # payload bytes of the frame under way
        self._header = b""  # of the next frame, as far as it has come
        self._fragmented = False  # further fragments of a message are to come

    @property
    def between(self) -> bool:
        """Whether the bytes so far end where a message ends."""
        return not self._left and not self._header and not self._fragmented

    @property
    def between_frames(self) -> bool:
        """Whether the bytes so far end where a frame ends."""
        return not self._left and not self._header

    def follow(self, data: bytes, *, stop: bool = False) -> int:
        """Take in bytes; give how many belong to whole messages or the one under way.

        With `stop`, only up to the first boundary; otherwise all of them.
        """
        at, size = 0, len(data)
        while True:
            if self._left:
                step = min(self._left, size - at)
                self._left -= step
                at += step
            if self._left or at == size or (stop and at and self.between):
                return at
            at = self._read_header(data, at)

    def _read_header(self, data: bytes, at: int) -> int:
        """Read the length of the next frame; give where its payload begins, or the end of the data."""
        if not self._header and len(data) - at >= 2 and data[at + 1] & 0x7F < 126:
            self._left = (data[at + 1] & 0x7F) + (4 if data[at + 1] & 0x80 else 0)
            self._note(data[at])
            return at + 2
        for end in range(at, len(data)):
            self._header += data[end : end + 1]
            length = _payload_length(self._header)
            if length is not None:
                self._note(self._header[0])
                self._left, self._header = length, b""
                return end + 1
        return len(data)

    def _note(self, first: int) -> None:
        """Note from the first byte of a frame whether its message goes on; control frames are no part of one."""
        if not first & 0x08:
            self._fragmented = not first & 0x80


def _payload_length(header: bytes) -> int | None:
    """Return how many bytes follow the length field of a frame (mask and payload), None if the field is unfinished."""
    if len(header) < 2:
        return None
    short = header[1] & 0x7F
    extended = {126: 2, 127: 8}.get(short, 0)
    if len(header) < 2 + extended:
        return None
    length = int.from_bytes(header[2 : 2 + extended]) if extended else short
    return length + (4 if header[1] & 0x80 else 0)


class _Side(asyncio.Protocol):
    """One end of a tunnel."""

    __slots__ = (
        "_tunnel",
        "ended",
        "follower",
        "held",
        "lost",
        "other",
        "owes_end",
        "paused",
        "tls",
        "told",
        "transport",
    )

    def __init__(self, tunnel: "Tunnel", transport: asyncio.Transport, follower: FrameFollower | None) -> None:
        self._tunnel = tunnel
        self.transport = transport
        self.follower = follower  # of the bytes that come from this side
        self.other: _Side = self
        self.ended = False  # this side has sent its last byte
        self.lost = False  # its connection is gone
        self.told = False  # this side's Close was put in by us: nothing more of it is passed on
        self.paused = False
        self.tls = goodbye.tls_of(transport)
        self.held = False  # over TLS, what has come may not have been read: reading is paused, or has just gone on
        self.owes_end = False  # and its end is to be said once that is over

    def data_received(self, data: bytes) -> None:
        tunnel = self._tunnel
        tunnel.last_moved = tunnel.clock()
        tunnel.count(self, len(data))
        if self.told:
            return
        if self.follower is not None:
            if tunnel.closing:
                end = self.follower.follow(data, stop=True)
                self.other.transport.write(data[:end])
                if self.follower.between:
                    tunnel.tell(self)
                return
            self.follower.follow(data)
        self.other.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        self._tunnel.side_ended(self)
        return self.tls is None  # the other direction may still have something to say

    def end_writing(self) -> None:
        """Pass on the end of what the other side sends."""
        if self.transport.is_closing():
            return
        if self.tls is None:
            self.transport.write_eof()
        elif self.held:
            self.owes_end = True
        else:
            goodbye.end_writing(self.transport, self.tls)

    def _was_read(self) -> None:
        """Send the end of TLS that is owed, now that all that had come has been read."""
        if self.lost or self.other.paused:
            return
        self.held = False
        if self.owes_end:
            self.end_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        tunnel = self._tunnel
        if self.tls is not None and not self.ended:
            data, _ = goodbye.remains(self.tls)
            if data and not self.other.transport.is_closing():
                self.data_received(data)
        tunnel.hangups.forget(self.transport)
        tunnel.side_lost(self)
        self.lost = True
        if self.other.lost:
            tunnel.take_apart()

    def pause_writing(self) -> None:
        self.paused = True
        self._tunnel.reads_slowly(self)
        if not self.other.transport.is_closing():
            self.other.held = True
            self.other.transport.pause_reading()
            self._tunnel.hangups.watch(self.other.transport)

    def resume_writing(self) -> None:
        self.paused = False
        self._tunnel.reads_on(self)
        self._tunnel.hangups.forget(self.other.transport)
        if not self.other.transport.is_closing():
            self.other.transport.resume_reading()
            if self.other.tls is not None:  # which reads on with the loop's next turn, before this
                asyncio.get_running_loop().call_soon(self.other._was_read)


class Tunnel:
    """Two transports joined. `ended` is called once, when both are closed or about to be."""

    __slots__ = (
        "_client",
        "_ended",
        "_idle",
        "_progress",
        "_target",
        "_wheel",
        "_write_idle",
        "bytes_down",
        "bytes_up",
        "clock",
        "closing",
        "deadline",
        "hangups",
        "last_moved",
        "visit",
        "was_cut",
        "websocket",
    )

    def __init__(
        self,
        client: asyncio.Transport,
        target: asyncio.Transport,
        *,
        websocket: bool,
        idle: float,
        wheel: Wheel,
        hangups: Hangups,
        ended: Callable[[], None],
        write_idle: float = NEVER,
    ) -> None:
        self.websocket = websocket
        self.bytes_up = 0
        self.bytes_down = 0
        self.closing = False  # a drain has asked for the end
        self.was_cut = False
        self.clock = wheel.clock
        self.hangups = hangups
        self.last_moved = wheel.clock()
        self.deadline = self.last_moved + idle
        self.visit = NEVER
        self._idle = idle
        self._write_idle = write_idle  # how long the client may take nothing of what waits for it
        self._progress: Progress | None = None  # of the client, while something waits for it
        self._wheel = wheel
        self._ended: Callable[[], None] | None = ended
        self._client = _Side(self, client, FrameFollower() if websocket else None)
        self._target = _Side(self, target, FrameFollower() if websocket else None)
        self._client.other, self._target.other = self._target, self._client

    def __repr__(self) -> str:
        return f"<Tunnel up={self.bytes_up} down={self.bytes_down} closing={self.closing}>"

    def open(self, early_up: bytes, early_down: bytes) -> None:
        """Begin, with what came right behind the request and right behind the response head."""
        for side in (self._client, self._target):
            side.transport.set_write_buffer_limits(high=_WRITE_HIGH)
            side.transport.set_protocol(side)
            if not side.transport.is_closing():
                side.transport.resume_reading()
        self._wheel.watch(self)
        if early_up:
            self._client.data_received(early_up)
        if early_down:
            self._target.data_received(early_down)

    def count(self, side: _Side, size: int) -> None:
        """Count bytes that came from `side`."""
        if side is self._client:
            self.bytes_up += size
        else:
            self.bytes_down += size

    def close_going_away(self) -> bool:
        """Send both sides 1001 at their next frame boundary; return False if this is no WebSocket."""
        if not self.websocket:
            return False
        if not self.closing:
            self.closing = True
            for side in (self._client, self._target):
                if side.follower is not None and side.follower.between:
                    self.tell(side)
            self._move_deadline(_CLOSING_SECONDS)
        return True

    def tell(self, side: _Side) -> None:
        """Put a Close behind the last whole frame that came from `side`; nothing of it is passed on any more."""
        if not side.told:
            side.told = True
            if not side.ended and not side.other.transport.is_closing():
                side.other.transport.write(_CLOSE_TO_TARGET if side is self._client else _CLOSE_TO_CLIENT)

    def cut(self) -> None:
        """End at once, without a clean end."""
        self.was_cut = True
        self._client.transport.abort()
        self._target.transport.abort()
        self._finish()

    def side_ended(self, side: _Side) -> None:
        """Pass a half-close on; when both halves are closed, the tunnel is.

        A side that ends TLS takes nothing more either: before TLS 1.3 that was the rule (RFC 5246 §7.2.1), and event
        loops know no other. While closing, the other side may still have its answer to our Close under way: it is read
        and dropped.
        """
        if side.other.ended or side.tls is not None:
            self._close()
            return
        side.other.end_writing()
        if self.closing:
            return
        self._idle = min(self._idle, _HALF_CLOSED_SECONDS)
        self._move_deadline(self._idle)

    def side_lost(self, side: _Side) -> None:
        """Close the other side too."""
        side.ended = True
        self._close()

    def take_apart(self) -> None:
        """Break the cycle between the sides, when both are lost: no callback will come any more.

        Held together by a cycle, each tunnel would keep some 6 KB until a full garbage collection, which is rare here.
        """
        for side in (self._client, self._target):
            del side.other
            del side._tunnel

    def expire(self, now: float) -> None:
        """Close a tunnel in which nothing has moved for its idle time."""
        due = self.last_moved + self._idle
        progress = self._progress
        if progress is not None and progress.has_stalled(now):
            self.cut()
        elif self.closing:
            self.deadline = NEVER
            for side in (self._client, self._target):
                if side.follower is not None and side.follower.between_frames:
                    self.tell(side)  # in the middle of a message, which RFC 6455 §5.4 allows
            self._close()
        elif due <= now:
            self.deadline = NEVER
            self._close()
            self._client.transport.abort()
            self._target.transport.abort()
        else:
            self.deadline = due if progress is None else min(due, now + progress.step)

    def reads_slowly(self, side: _Side) -> None:
        """Note that a side does not take what is written to it; the client has only so long."""
        if side is self._client and self._write_idle < NEVER:
            self._progress = Progress(side.transport, self._write_idle, self.clock())
            self._move_deadline(min(self._progress.step, max(self.deadline - self.clock(), 0.0)))

    def reads_on(self, side: _Side) -> None:
        """Note that a side has caught up."""
        if side is self._client:
            self._progress = None

    def _move_deadline(self, seconds: float) -> None:
        self.deadline = self.clock() + seconds
        if self.deadline < self.visit:
            self._wheel.watch(self)

    def _close(self) -> None:
        """Close both sides once what was written has been sent, or some time later."""
        for side in (self._client, self._target):
            side.transport.close()
            if side.transport.get_write_buffer_size():
                patience = self._write_idle if side is self._client else _HALF_CLOSED_SECONDS
                asyncio.get_running_loop().call_later(min(patience, _HALF_CLOSED_SECONDS), side.transport.abort)
        self._finish()

    def _finish(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            self.deadline = NEVER
            self._wheel.forget(self)
            ended()
