"""What a connection to a target notes about itself, and how its answers end."""

import asyncio
import contextlib
import functools
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest
import trustme
import uvloop

from devhost_server.exchange import Exchange
from devhost_server.failures import Fault
from devhost_server.messages.chunked import ChunkedDecoder
from devhost_server.messages.request_head import RequestFields
from devhost_server.messages.reuse import Reason
from devhost_server.shared.board import Capacity, Scoreboard
from devhost_server.timing.deadlines import Wheel
from devhost_server.upstream.caller import Event
from devhost_server.upstream.http1 import _CHUNKED, _DONE, _LENGTH, ServerConnection
from devhost_server.upstream.options import TargetOptions, UpstreamOptions, UpstreamTimeouts
from devhost_server.upstream.upstream import Upstream
from tests.benchmarks.inmemory import Loopback
from tests.support.compiled import next_event

REQUEST = b"POST /u HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 5\r\n\r\nhello"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize("unsent", [0, 100])
def test_one_with_unsent_bytes_of_a_request_is_not_used_again(monkeypatch: pytest.MonkeyPatch, unsent: int) -> None:
    loopback = Loopback()
    monkeypatch.setattr(loopback.server_transport, "get_write_buffer_size", lambda: unsent)
    assert loopback.exchange(REQUEST, RESPONSE).startswith(b"HTTP/1.1 200 OK")
    assert (loopback.target.pool.take() is loopback.server) is (unsent == 0)
    assert loopback.server.reasons == (Reason.EARLY if unsent else 0)
    loopback.close()


def test_one_that_was_held_back_over_tls_rests_before_it_is_used_again() -> None:
    """What TLS has taken in while reading was paused is seen by no look at the socket."""
    for tls in (None, ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())):
        loopback = Loopback()
        loopback.server._tls = tls
        loopback.server.caller = Exchange(cast("Any", None), b"GET", b"/", RequestFields([]), 0.0)
        loopback.server._state, loopback.server._framing = _DONE, _LENGTH
        loopback.server.pause_reading()
        assert loopback.server.detach() == (0 if tls is None else Reason.HELD)
        assert not loopback.server.reasons
        loopback.close()


# --- answers that end with the connection -----------------------------------------------------------------------------

UNBOUNDED = b"HTTP/1.1 200 OK\r\n\r\nbody"
BOUNDED = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"


def end(sock: socket.socket, how: str) -> None:
    """End a connection in one of the ways that servers, and those who cut their connections, do."""
    if how == "close_notify":
        with contextlib.suppress(OSError):
            cast("ssl.SSLSocket", sock).unwrap()
    elif how == "half close":
        socket.socket.shutdown(sock, socket.SHUT_WR)
        sock.settimeout(5)
        with contextlib.suppress(OSError):
            sock.recv(1)
    sock.close()


def serve_once(listener: socket.socket, tls: ssl.SSLContext | None, answer: bytes, how: str) -> None:
    with contextlib.suppress(OSError):
        sock, _ = listener.accept()
        sock.settimeout(5)
        wrapped = sock if tls is None else tls.wrap_socket(sock, server_side=True)
        wrapped.recv(1000)
        wrapped.sendall(answer)
        end(wrapped, how)


def connection_to(url: str = "https://localhost") -> ServerConnection:
    """A connection that its target counts, not made yet."""
    board, wheel = Scoreboard(Capacity(1, 1, 1, 1)), Wheel(asyncio.get_running_loop().time)
    options = UpstreamOptions(targets=(TargetOptions(url=url),), timeouts=UpstreamTimeouts(response=5))
    upstream = Upstream("app", options, wheel, board.row(0), board.upstream_at(0), [board.target_at(0)], start=0)
    connection = ServerConnection(upstream.targets[0].pool, wheel)
    upstream.targets[0].pool._connections.add(connection)
    return connection


async def gone(connection: ServerConnection) -> None:
    """Wait until the target no longer counts a connection."""
    while connection in connection.pool._connections:
        await asyncio.sleep(0.001)


async def events_of(port: int, tls: ssl.SSLContext | None) -> list[object]:
    """Ask once and give what the exchange was told until the connection was gone."""
    connection, events = connection_to(), []
    client = type("Client", (), {"send_body": lambda *_: None})()
    exchange = Exchange(cast("Any", client), b"GET", b"/", RequestFields([]), 0.0)

    async def live() -> None:
        while True:
            events.append(await next_event(exchange))

    exchange.run(live())
    async with asyncio.timeout(20):
        name = "localhost" if tls is not None else None
        await asyncio.get_running_loop().create_connection(
            lambda: connection, "127.0.0.1", port, ssl=tls, server_hostname=name
        )
        exchange.attach(connection, b"GET / HTTP/1.1\r\n\r\n")
        await gone(connection)
    return events


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("version", [None, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
@pytest.mark.parametrize("how", ["close_notify", "close", "half close"])
@pytest.mark.parametrize("answer", [UNBOUNDED, BOUNDED], ids=["to the end", "with a length"])
def test_an_answer_to_the_end_is_whole_only_if_the_target_ended_it(
    authority: trustme.CA,
    loop: Callable[[], asyncio.AbstractEventLoop],
    version: ssl.TLSVersion | None,
    how: str,
    answer: bytes,
) -> None:
    if version is None and how == "close_notify":
        pytest.skip("without TLS there is none")
    server = client = None
    if version is not None:
        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
        authority.issue_cert("localhost").configure_cert(server)
        authority.configure_trust(client)
        server.minimum_version = server.maximum_version = version
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        serving = threading.Thread(target=serve_once, args=(listener, server, answer, how), daemon=True)
        serving.start()
        with asyncio.Runner(loop_factory=loop) as runner:
            events = runner.run(events_of(listener.getsockname()[1], client))
        serving.join(10)
    assert events[0] == Event.RESPONSE
    clean = how == "close_notify" or version is None
    if answer is BOUNDED:
        assert events == [Event.RESPONSE], "complete either way"
    elif clean:
        assert events == [Event.RESPONSE, Event.FINISHED]
    else:
        (_, fault) = events
        assert isinstance(fault, Fault)
        assert fault.failure.flag == "UC"


@pytest.mark.parametrize("how", ["close_notify", "close"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def test_what_came_over_tls_while_reading_was_paused_is_read_although_the_target_has_gone(
    authority: trustme.CA, version: ssl.TLSVersion, how: str
) -> None:
    """The client reads slowly: uvloop's transport takes in the end of the answer, and gives it up at the FIN."""
    paused, body, rest = threading.Event(), bytearray(), b"r" * 40_000
    server, tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    server.maximum_version = version
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(tls)

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError), server.wrap_socket(listener.accept()[0], server_side=True) as wrapped:
            wrapped.recv(1000)
            wrapped.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            wrapped.sendall(b"begun")
            paused.wait(10)
            wrapped.sendall(rest)
            wrapped.settimeout(0.3)  # nobody answers the close_notify, for nobody reads
            end(wrapped, how)

    async def scene(port: int) -> list[object]:
        connection, events = connection_to(), []

        def send_body(_client: object, _exchange: object, pieces: list[bytes]) -> None:
            body.extend(b"".join(pieces))
            connection.pause_reading()
            paused.set()

        exchange = Exchange(
            cast("Any", type("Client", (), {"send_body": send_body})()), b"GET", b"/", RequestFields([]), 0
        )

        async def live() -> None:
            while True:
                events.append(await next_event(exchange))
                body.extend(b"".join(exchange.first_pieces))
                exchange.first_pieces = ()
                if body:
                    connection.pause_reading()
                    paused.set()

        exchange.run(live())
        async with asyncio.timeout(20):
            await asyncio.get_running_loop().create_connection(
                lambda: connection, "127.0.0.1", port, ssl=tls, server_hostname="localhost"
            )
            exchange.attach(connection, b"GET / HTTP/1.1\r\n\r\n")
            await gone(connection)
        return events

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            events = runner.run(scene(listener.getsockname()[1]))
        thread.join(10)
    assert bytes(body) == b"begun" + rest
    assert (events[-1] is Event.FINISHED) is (how == "close_notify")


@pytest.mark.parametrize(("size", "gives_way"), [(100, False), (5000, True)])
def test_one_whose_chunks_are_tiny_waits_for_everybody_elses_turn(
    monkeypatch: pytest.MonkeyPatch, size: int, gives_way: bool
) -> None:
    loopback, calls = Loopback(), list[str]()
    connection = loopback.server
    for call in ("pause_reading", "resume_reading"):
        monkeypatch.setattr(loopback.server_transport, call, functools.partial(calls.append, call))
    connection._decoder, connection._framing = ChunkedDecoder(1000, 10), _CHUNKED

    async def scene() -> None:
        connection._decode(b"1\r\nx\r\n" * size)
        assert calls == ["pause_reading"] * gives_way
        await asyncio.sleep(0)
        assert calls == ["pause_reading", "resume_reading"] * gives_way

    loopback.loop.run_until_complete(scene())
    loopback.close()
