"""The worker's connections as an httpx client, against real servers on loopback."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from devhost_server.shared.board import Capacity, Scoreboard
from devhost_server.timing.deadlines import Wheel
from devhost_server.upstream.client import UpstreamPool
from devhost_server.upstream.options import PoolOptions, TargetOptions, UpstreamOptions, UpstreamTimeouts
from devhost_server.upstream.upstream import Upstream

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Bench:
    """An upstream with one real server behind it, and the pool in front."""

    def __init__(self, port: int, **pool: float) -> None:
        board = Scoreboard(Capacity(1, 1, 1, 1))
        options = UpstreamOptions(
            targets=(TargetOptions(url=f"http://127.0.0.1:{port}"),),
            pool=PoolOptions.model_validate(pool),
            timeouts=UpstreamTimeouts(connect=1, response=0.5),
        )
        self.wheel = Wheel(asyncio.get_running_loop().time)
        self.upstream = Upstream(
            "app", options, self.wheel, board.row(0), board.upstream_at(0), [board.target_at(0)], start=0
        )
        self.pool = UpstreamPool({"app": self.upstream}.get)


def with_server(handler: Handler, test: Callable[[Bench], Awaitable[None]], **pool: float) -> None:
    serving: set[asyncio.Task[None]] = set()

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())  # type: ignore[arg-type] # a handler runs in a task
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(guarded, "127.0.0.1", 0)
        async with server:
            bench = Bench(server.sockets[0].getsockname()[1], **pool)
            turning = asyncio.create_task(turn(bench.wheel))
            try:
                async with asyncio.timeout(10):
                    await test(bench)
            finally:
                turning.cancel()
                await bench.pool.aclose()
                bench.upstream.retire()
                if serving:
                    await asyncio.wait(serving, timeout=1)
                await asyncio.sleep(0)

    asyncio.run(main())


async def turn(wheel: Wheel) -> None:
    while True:
        await asyncio.sleep(0.02)
        wheel.turn()


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with its own head; the connection's number stands in front."""
    try:
        while True:
            head = await read_head(reader)
            length = next(
                (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
            )
            body = await reader.readexactly(length)
            text = head + body
            writer.write(b"HTTP/1.1 200 Fine\r\nSet-Cookie: a=b\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def test_a_call_goes_out_as_written_and_its_connection_is_used_again() -> None:
    async def test(bench: Bench) -> None:
        client = bench.pool.client()
        first = await client.get("http://app/path?q=1", headers={"X-One": "1"})
        assert (first.status_code, first.reason_phrase) == (200, "Fine")
        assert b"GET /path?q=1 HTTP/1.1\r\n" in first.content
        second = await client.post("http://app/", content=b"body of it")
        assert second.content.endswith(b"body of it")
        assert b"cookie" not in second.content.lower(), "a cookie of the first answer went out with the second request"
        assert "open=1 idle=1" in repr(bench.upstream.targets[0])

    with_server(echo, test)


def test_a_streamed_body_is_chunked_and_arrives_whole() -> None:
    received = bytearray()

    async def chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        assert b"transfer-encoding: chunked" in head.lower()
        while size := int(await reader.readline(), 16):
            received.extend(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readline()
        writer.write(b"HTTP/1.1 204 None\r\n\r\n")

    async def produce() -> AsyncIterator[bytes]:
        for number in range(300):
            yield bytes([number % 256]) * 10_000

    async def test(bench: Bench) -> None:
        response = await bench.pool.client().post("http://app/", content=produce())
        assert response.status_code == 204
        assert bytes(received) == b"".join([bytes([number % 256]) * 10_000 for number in range(300)])

    with_server(chunks, test)


def test_a_large_answer_waits_for_its_reader() -> None:
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        for _ in range(500):
            writer.write(b"x" * 100_000)
            sent += 100_000
            await writer.drain()

    async def test(bench: Bench) -> None:
        async with bench.pool.client().stream("GET", "http://app/") as response:
            await asyncio.sleep(0.2)
            assert sent < 30_000_000, "the target was not held back"
            size = 0
            async for piece in response.aiter_raw():
                size += len(piece)
        assert size == 50_000_000

    with_server(pour, test)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", httpx.RemoteProtocolError),
        (b"nonsense\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", httpx.RemoteProtocolError),
    ],
)
def test_a_bad_answer_is_httpx_own_error(answer: bytes, error: type[Exception]) -> None:
    async def bad(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answer)
        writer.close()

    async def test(bench: Bench) -> None:
        with pytest.raises(error):
            await bench.pool.client().get("http://app/")
        assert "idle=0" in repr(bench.upstream.targets[0])

    with_server(bad, test)


def test_silence_is_a_time_out_of_the_upstream() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def test(bench: Bench) -> None:
        with pytest.raises(httpx.ReadTimeout, match="no answer within"):
            await bench.pool.client().get("http://app/")

    with_server(silent, test)


def test_a_target_that_is_not_there_and_an_upstream_that_is_not() -> None:
    async def test(bench: Bench) -> None:
        gone = Bench(1)
        with pytest.raises(httpx.ConnectError, match="refused"):
            await gone.pool.client().get("http://app/")
        with pytest.raises(httpx.UnsupportedProtocol, match="no upstream called other"):
            await bench.pool.client().get("http://other/")
        await gone.pool.aclose()

    with_server(echo, test)


def test_cancelled_calls_leave_the_pool_whole() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await read_head(reader)
            await asyncio.sleep(0.05)
            writer.write(b"HTTP/1.1 204 None\r\n\r\n")
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def test(bench: Bench) -> None:
        client = bench.pool.client()
        for round_ in range(60):
            calls = [asyncio.create_task(client.get("http://app/")) for _ in range(8)]
            await asyncio.sleep(0.001 * (round_ % 8))
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        assert (await client.get("http://app/")).status_code == 204
        target = bench.upstream.targets[0]
        assert (target.pool.active, bench.upstream.quiet) == (0, True)

    with_server(slow, test, max_connections=5)


def test_each_process_builds_its_own_client_when_it_first_asks() -> None:
    async def test(bench: Bench) -> None:
        client = bench.pool.client()
        assert bench.pool.client() is client
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.write(writer, b"same" if bench.pool.client() is client else b"own")
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(reader, 10) == b"own"
        os.close(reader)
        os.close(writer)

    with_server(echo, test)


@pytest.mark.parametrize("when", ["at once", "after a piece"])
def test_a_body_that_fails_is_the_callers_error_and_ends_the_connection(when: str) -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def failing() -> AsyncIterator[bytes]:
        if when == "after a piece":
            yield b"x"
        raise LookupError("the caller's own")
        yield b""

    async def test(bench: Bench) -> None:
        with pytest.raises(LookupError, match="the caller's own"):
            await bench.pool.client().post("http://app/", content=failing())
        target = bench.upstream.targets[0]
        assert (target.pool.active, "idle=0" in repr(target)) == (0, True)

    with_server(silent, test)


def test_a_body_that_fails_after_the_answer_began_fails_its_reader() -> None:
    go = asyncio.Event()

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin")
        await reader.read()

    async def failing() -> AsyncIterator[bytes]:
        yield b"x"
        await go.wait()
        raise LookupError("the caller's own")

    async def test(bench: Bench) -> None:
        async with bench.pool.client().stream("POST", "http://app/", content=failing()) as response:
            go.set()
            with pytest.raises(LookupError, match="the caller's own"):
                await response.aread()
        assert "idle=0" in repr(bench.upstream.targets[0])

    with_server(early, test)


@pytest.mark.parametrize(
    ("method", "headers", "content", "kept"),
    [
        ("GET", {}, None, True),
        ("POST", {}, b"x", True),
        ("GET", {}, b"x", False),
        ("REPORT", {}, b"x", False),
        ("GET", {"Authorization": "Negotiate YII"}, None, False),
        ("GET", {"Upgrade": "foo", "Connection": "Upgrade", "TE": "trailers", "Keep-Alive": "1"}, None, True),
    ],
)
def test_what_is_used_again_is_decided_as_for_traffic(
    method: str, headers: dict[str, str], content: bytes | None, kept: bool
) -> None:
    async def test(bench: Bench) -> None:
        answer = await bench.pool.client().request(method, "http://app/", headers=headers, content=content)
        assert (b"Connection: close" in answer.content) is (content is not None and not kept)
        for name in (b"upgrade:", b"te:", b"keep-alive"):
            assert name not in answer.content.lower(), "what belongs to a hop stays there"
        assert f"idle={int(kept)}" in repr(bench.upstream.targets[0])

    with_server(echo, test)


def test_a_target_that_authenticates_connections_is_asked_on_new_ones() -> None:
    async def challenging(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 401 No\r\nWWW-Authenticate: NTLM\r\nContent-Length: 2\r\n\r\nno")
        await reader.read()

    async def test(bench: Bench) -> None:
        assert (await bench.pool.client().get("http://app/")).status_code == 401
        assert "idle=0" in repr(bench.upstream.targets[0])

    with_server(challenging, test)


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nContent-Length: 1"},
        {"X y": "a"},
        {"Content-Length": "1", "Transfer-Encoding": "chunked"},
        {"Content-Length": "+1"},
        {"Transfer-Encoding": "gzip"},
    ],
)
def test_what_is_no_valid_request_is_not_sent(headers: dict[str, str]) -> None:
    async def test(bench: Bench) -> None:
        with pytest.raises(httpx.LocalProtocolError):
            await bench.pool.client().get("http://app/", headers=headers)
        assert "open=0" in repr(bench.upstream.targets[0])

    with_server(echo, test)


def test_a_switch_of_protocols_is_an_error() -> None:
    async def switching(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n")
        await reader.read()

    async def test(bench: Bench) -> None:
        with pytest.raises(httpx.RemoteProtocolError, match="unasked"):
            await bench.pool.client().get("http://app/")
        assert "idle=0" in repr(bench.upstream.targets[0])

    with_server(switching, test)
