"""Tunnels: frame boundaries by websockets' own reading, and the two directions over real sockets."""

import asyncio
import gc
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from devhost_server.doors.tunnel import FrameFollower, Tunnel
from devhost_server.timing.deadlines import TICK, Wheel
from devhost_server.timing.hangups import Hangups
from tests.messages import near_http

GOING_AWAY = 1001

# --- frames ----------------------------------------------------------------------------------------------------------

SIZES = [0, 1, 2, 125, 126, 127, 300, 65535, 65536]
payloads = st.one_of(st.binary(max_size=8), st.sampled_from(SIZES).map(bytes))


def unmoved(wheel: Wheel | None = None) -> dict[str, Any]:
    """What a tunnel is given besides, where no time passes and nobody asks for its end."""
    return {"wheel": wheel or Wheel(lambda: 0.0), "hangups": Hangups(), "ended": lambda: None}


@st.composite
def messages(draw: st.DrawFn) -> list[Frame]:
    """A data message, perhaps in fragments with control frames between them, or a control frame alone."""
    if draw(st.booleans()):
        opcode = draw(st.sampled_from([Opcode.PING, Opcode.PONG]))
        return [Frame(opcode, draw(st.binary(max_size=125)))]
    frames = [Frame(Opcode.BINARY, draw(payloads), fin=False)]
    for _ in range(draw(st.integers(0, 2))):
        frames.append(Frame(Opcode.CONT, draw(payloads), fin=False))
        frames += [Frame(Opcode.PING, b"")] * draw(st.integers(0, 1))
    frames[-1 if frames[-1].opcode is not Opcode.PING else -2].fin = True
    return frames


streams = st.lists(messages(), max_size=4).map(lambda groups: [frame for group in groups for frame in group])


def encoded(frames: list[Frame], *, masked: bool) -> list[bytes]:
    return [frame.serialize(mask=masked) for frame in frames]


def read(data: bytes, *, masked: bool) -> list[Frame]:
    """Give the frames that a real endpoint finds in these bytes; anything but whole frames fails the test."""
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    frames = []
    while reader.buffer:
        parsing = Frame.parse(reader.read_exact, mask=masked, max_size=None)
        try:
            next(parsing)
        except StopIteration as whole:
            frames.append(whole.value)
        else:
            pytest.fail(f"the bytes end within a frame: {data!r}")
    return frames


def message_ends(frames: list[Frame], parts: list[bytes]) -> list[int]:
    """Where a message has ended and none is open: control frames between fragments are no such places."""
    ends, at, is_open = [], 0, False
    for frame, part in zip(frames, parts, strict=True):
        at += len(part)
        if frame.opcode in (Opcode.CONT, Opcode.TEXT, Opcode.BINARY):
            is_open = not frame.fin
        if not is_open:
            ends.append(at)
    return ends


@given(streams, st.booleans(), st.data())
def test_boundaries_are_where_messages_end(frames: list[Frame], masked: bool, data: st.DataObject) -> None:
    parts = encoded(frames, masked=masked)
    stream = b"".join(parts)
    ends = {0, *message_ends(frames, parts)}
    follower = FrameFollower()
    assert follower.between
    at = 0
    for piece in near_http.pieces(stream, data.draw(near_http.cuts(len(stream)))):
        assert follower.follow(piece) == len(piece)
        at += len(piece)
        assert follower.between is (at in ends)


@given(streams.filter(bool), st.booleans(), st.data())
def test_a_follower_stops_at_the_first_boundary(frames: list[Frame], masked: bool, data: st.DataObject) -> None:
    parts = encoded(frames, masked=masked)
    stream = b"".join(parts)
    first = message_ends(frames, parts)[0]
    at = data.draw(st.integers(1, first))
    follower = FrameFollower()
    follower.follow(stream[:at])
    if follower.between:
        return
    assert at + follower.follow(stream[at:], stop=True) == first
    assert follower.between


def test_lengths_are_followed_byte_by_byte() -> None:
    for size in SIZES:
        for masked in (False, True):
            (frame,) = encoded([Frame(Opcode.BINARY, bytes(size))], masked=masked)
            follower = FrameFollower()
            for at in range(20 if size > 20 else len(frame)):
                follower.follow(frame[at : at + 1])
            follower.follow(frame[20 if size > 20 else len(frame) :])
            assert follower.between, size


# --- a Close between frames, over transports in memory ---------------------------------------------------------------


@dataclass(eq=False)
class Pipe(asyncio.Transport):
    """A transport that notes what is written to it."""

    written: bytearray = field(default_factory=bytearray)
    protocol: asyncio.Protocol | None = None
    closed: bool = False
    paused: bool = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = cast("asyncio.Protocol", protocol)

    def receive(self, data: bytes) -> None:
        assert self.protocol is not None
        if data and not self.closed:
            self.protocol.data_received(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


@settings(max_examples=150)
@given(streams, streams, st.data())
def test_a_close_comes_between_two_frames_and_nothing_behind_it(
    up: list[Frame], down: list[Frame], data: st.DataObject
) -> None:
    client, target = Pipe(), Pipe()
    now = 0.0
    wheel = Wheel(lambda: now)
    tunnel = Tunnel(client, target, websocket=True, idle=60, **unmoved(wheel))
    up_stream, down_stream = b"".join(encoded(up, masked=True)), b"".join(encoded(down, masked=False))
    up_pieces = near_http.pieces(up_stream, data.draw(near_http.cuts(len(up_stream))))
    down_pieces = near_http.pieces(down_stream, data.draw(near_http.cuts(len(down_stream))))
    tunnel.open(up_pieces.pop(0), down_pieces.pop(0))
    moment = data.draw(st.integers(0, max(len(up_pieces), len(down_pieces))))
    for turn in range(max(len(up_pieces), len(down_pieces)) + 1):
        if turn == moment:
            assert tunnel.close_going_away()
        if turn < len(up_pieces):
            client.receive(up_pieces[turn])
        if turn < len(down_pieces):
            target.receive(down_pieces[turn])
    for stream, sent, masked in ((target.written, up, True), (client.written, down, False)):
        *passed, close = read(bytes(stream), masked=masked)
        assert passed == sent[: len(passed)]
        assert close.opcode is Opcode.CLOSE
        assert struct.unpack("!H", close.data) == (GOING_AWAY,)


def test_a_frame_under_way_is_let_through_before_the_close() -> None:
    client, target = Pipe(), Pipe()
    tunnel = Tunnel(
        client, target, websocket=True, idle=60, wheel=Wheel(lambda: 0.0), hangups=Hangups(), ended=lambda: None
    )
    first, second = encoded([Frame(Opcode.TEXT, b"one"), Frame(Opcode.TEXT, b"two")], masked=False)
    tunnel.open(b"", b"")
    target.receive(first[:3])
    tunnel.close_going_away()
    assert target.written, "nothing is under way towards the target: it is told at once"
    assert client.written == first[:3]
    target.receive(first[3:] + second)
    assert [frame.data for frame in read(bytes(client.written), masked=False)] == [b"one", b"\x03\xe9"]


def test_told_twice_is_told_once() -> None:
    client, target = Pipe(), Pipe()
    tunnel = Tunnel(
        client, target, websocket=True, idle=60, wheel=Wheel(lambda: 0.0), hangups=Hangups(), ended=lambda: None
    )
    tunnel.open(b"", b"")
    assert tunnel.close_going_away()
    assert tunnel.close_going_away()
    assert len(read(bytes(client.written), masked=False)) == len(read(bytes(target.written), masked=True)) == 1


def test_what_is_no_websocket_cannot_be_told() -> None:
    client, target = Pipe(), Pipe()
    tunnel = Tunnel(
        client, target, websocket=False, idle=60, wheel=Wheel(lambda: 0.0), hangups=Hangups(), ended=lambda: None
    )
    tunnel.open(b"", b"")
    assert not tunnel.close_going_away()
    assert not tunnel.closing
    client.receive(b"\x81\x83")
    assert bytes(target.written + client.written) == b"\x81\x83"


# --- over real sockets -----------------------------------------------------------------------------------------------


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class Joined:
    """A tunnel between two TCP connections; `client` and `target` are their far ends."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wheel = Wheel(self.clock)
        self.endings = 0
        self.near: list[asyncio.Transport] = []
        self.tunnel: Tunnel

    async def open(
        self, *, websocket: bool = False, idle: float = 100.0, up: bytes = b"", down: bytes = b"", buffers: int = 0
    ) -> None:
        loop = asyncio.get_running_loop()
        self.client, client = tcp_pair(buffers)
        self.target, target = tcp_pair(buffers)
        for sock in (client, target):
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
            self.near.append(transport)
        self.tunnel = Tunnel(
            self.near[0],
            self.near[1],
            websocket=websocket,
            idle=idle,
            wheel=self.wheel,
            hangups=Hangups(),
            ended=self._ended,
        )
        self.tunnel.open(up, down)

    def _ended(self) -> None:
        self.endings += 1

    async def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.wheel.turn()
        await asyncio.sleep(0)

    async def send(self, sock: socket.socket, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(sock, data)

    async def read(self, sock: socket.socket, size: int) -> bytes:
        """Read so many bytes, or fewer if the end comes before."""
        data = b""
        while len(data) < size:
            piece = await asyncio.get_running_loop().sock_recv(sock, min(size - len(data), 1 << 20))
            if not piece:
                break
            data += piece
        return data

    async def over(self, sock: socket.socket) -> bool:
        """Wait for the end, by whichever way it comes."""
        try:
            return await self.read(sock, 1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        for transport in self.near:
            transport.abort()
        self.client.close()
        self.target.close()


def tcp_pair(buffers: int) -> tuple[socket.socket, socket.socket]:
    """Give both ends of a connection, with kernel buffers of so many bytes if any are asked for."""
    with socket.socket() as listener:
        far = socket.socket()
        for sock in (listener, far) if buffers else ():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        far.connect(listener.getsockname())
        near, _ = listener.accept()
    far.setblocking(False)
    near.setblocking(False)
    return far, near


Scene = Callable[[Joined], Awaitable[None]]


async def until(condition: Callable[[], object]) -> None:
    """Give the loop turns until the condition holds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def on_loop(new_loop: Callable[[], asyncio.AbstractEventLoop], scene: Scene) -> None:
    async def play() -> None:
        joined = Joined()
        try:
            async with asyncio.timeout(20):
                await scene(joined)
        finally:
            joined.close()
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(play())


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Callable[[Scene], None]:
    return lambda scene: on_loop(request.param, scene)


Play = Callable[[Scene], None]


def test_bytes_pass_both_ways_and_are_counted(play: Play) -> None:
    async def scene(joined: Joined) -> None:
        await joined.open(up=b"early up ", down=b"early down ")
        await joined.send(joined.client, b"up")
        await joined.send(joined.target, b"down")
        assert await joined.read(joined.target, 11) == b"early up up"
        assert await joined.read(joined.client, 15) == b"early down down"
        assert (joined.tunnel.bytes_up, joined.tunnel.bytes_down) == (11, 15)
        assert repr(joined.tunnel) == "<Tunnel up=11 down=15 closing=False>"
        assert joined.endings == 0

    play(scene)


def test_half_a_close_is_passed_on_and_the_other_half_goes_on(play: Play) -> None:
    async def scene(joined: Joined) -> None:
        await joined.open()
        await joined.send(joined.client, b"last words")
        joined.client.shutdown(socket.SHUT_WR)
        assert await joined.read(joined.target, 100) == b"last words"
        await joined.send(joined.target, b"answer")
        assert await joined.read(joined.client, 6) == b"answer"
        assert joined.endings == 0
        joined.target.shutdown(socket.SHUT_WR)
        assert await joined.over(joined.client)
        await until(lambda: joined.endings)
        assert joined.endings == 1

    play(scene)


def test_half_closed_it_waits_a_minute_and_no_longer(play: Play) -> None:
    async def scene(joined: Joined) -> None:
        await joined.open(idle=3600)
        joined.client.shutdown(socket.SHUT_WR)
        assert await joined.over(joined.target)
        await joined.pass_time(59)
        assert joined.endings == 0
        await joined.pass_time(1 + 3 * TICK)
        assert joined.endings == 1
        assert await joined.over(joined.client)

    play(scene)


@pytest.mark.parametrize("who", ["client", "target"])
def test_a_side_that_vanishes_takes_the_other_with_it(play: Play, who: str) -> None:
    async def scene(joined: Joined) -> None:
        await joined.open()
        gone, left = (joined.client, joined.target) if who == "client" else (joined.target, joined.client)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()
        assert await joined.over(left)
        await until(lambda: joined.endings)
        assert joined.endings == 1

    play(scene)


def test_what_was_sent_before_vanishing_arrives(play: Play) -> None:
    async def scene(joined: Joined) -> None:
        await joined.open()
        data = bytes(range(256)) * 2000
        await joined.send(joined.target, data)
        joined.target.close()
        assert await joined.read(joined.client, len(data) + 1) == data
        joined.client.close()
        await until(lambda: joined.endings)

    play(scene)


def test_nothing_moving_for_the_idle_time_ends_it(play: Play) -> None:
    async def scene(joined: Joined) -> None:
        await joined.open(idle=10)
        for _ in range(3):
            await joined.pass_time(9)
            assert joined.endings == 0
            await joined.send(joined.client, b".")
            assert await joined.read(joined.target, 1) == b"."
        await joined.pass_time(9)
        assert joined.endings == 0
        await joined.pass_time(1 + 3 * TICK)
        assert joined.endings == 1
        assert await joined.over(joined.client)
        assert await joined.over(joined.target)

    play(scene)


def test_a_cut_is_at_once_and_tells_once(play: Play) -> None:
    async def scene(joined: Joined) -> None:
        await joined.open(websocket=True)
        joined.tunnel.cut()
        assert joined.endings == 1
        assert await joined.over(joined.client)
        assert await joined.over(joined.target)
        joined.tunnel.cut()
        await joined.pass_time(1000)
        assert joined.endings == 1

    play(scene)


def test_two_seconds_after_the_close_it_is_over(play: Play) -> None:
    async def scene(joined: Joined) -> None:
        await joined.open(websocket=True)
        joined.tunnel.close_going_away()
        (down,) = read(await joined.read(joined.client, 4), masked=False)
        (up,) = read(await joined.read(joined.target, 8), masked=True)
        assert down.data == up.data == b"\x03\xe9"
        await joined.pass_time(1.9)
        assert joined.endings == 0
        await joined.pass_time(0.1 + 3 * TICK)
        assert joined.endings == 1
        assert await joined.over(joined.client)

    play(scene)


def test_both_sides_answering_the_close_need_not_wait(play: Play) -> None:
    async def scene(joined: Joined) -> None:
        await joined.open(websocket=True)
        joined.tunnel.close_going_away()
        await joined.read(joined.client, 4)
        await joined.send(joined.client, b"\x88\x82\x00\x00\x00\x00\x03\xe9")
        joined.client.close()
        (only,) = read(await joined.read(joined.target, 100), masked=True)
        assert only.opcode is Opcode.CLOSE
        await joined.send(joined.target, b"\x88\x02\x03\xe9")
        joined.target.close()
        await until(lambda: joined.endings)
        assert joined.endings == 1

    play(scene)


def test_a_slow_reader_holds_the_sender_back_and_loses_nothing(play: Play) -> None:
    async def scene(joined: Joined) -> None:
        await joined.open(buffers=64 * 1024)
        loop = asyncio.get_running_loop()
        data = bytes(range(251)) * 24_000  # 6 MB
        sending = loop.create_task(joined.send(joined.client, data))
        moved = -1
        while moved != joined.tunnel.bytes_up:
            moved = joined.tunnel.bytes_up
            await asyncio.sleep(0.05)
        assert not sending.done()
        assert moved < 1 << 20  # what the kernel and one write buffer hold
        assert joined.near[1].get_write_buffer_size() < 640 * 1024
        await joined.send(joined.target, b"the other way is free")
        assert await joined.read(joined.client, 21) == b"the other way is free"
        assert await joined.read(joined.target, len(data)) == data
        await sending

    play(scene)


def test_what_has_ended_is_freed_at_once() -> None:
    gc.collect()
    gc.disable()  # what a cycle holds together stays, then
    try:
        client, target = Pipe(), Pipe()
        tunnel = Tunnel(client, target, websocket=True, idle=60, **unmoved())
        tunnel.open(b"", b"")
        for pipe in (client, target):
            assert pipe.protocol is not None
            pipe.protocol.connection_lost(None)
            pipe.protocol = None  # as transports do then
        del tunnel, client, target, pipe
        assert not [thing for thing in gc.get_objects() if isinstance(thing, Tunnel)]
    finally:
        gc.enable()
