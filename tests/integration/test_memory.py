"""What it costs: memory at rest, memory while large bodies pass slow peers, and many requests without an error."""

import contextlib
import os
import time
from typing import Any

import pytest

from tests.integration.helpers import PATIENT, EchoGateway, Peak, Storm, private_kib, pss_kib
from tests.support import RawClient, Received, ScriptedUpstream, UpstreamConnection, request, wait_until

MIB = 1024 * 1024
LONG = [pytest.mark.long, pytest.mark.timeout(300)]
GROWTH_KIB = 64 * 1024
_PIECE = 256 * 1024


def take_slowly(sock: Any, size: int) -> int:
    """Take so many bytes: nothing for a second, then in pieces with a pause after each; how many came."""
    time.sleep(1.0)  # the sender runs into whatever buffers there are
    sock.settimeout(20)
    buffer, taken = bytearray(_PIECE), 0
    while taken < size and (got := sock.recv_into(buffer)):
        taken += got
        if taken % (8 * _PIECE) < got:
            time.sleep(0.002)  # the pace of a slow peer
    return taken


def test_an_idle_worker_is_small(capsys: pytest.CaptureFixture[str]) -> None:
    with EchoGateway(workers=2) as gateway:
        for _ in range(20):
            assert gateway.get().status == 200
        sizes = [pss_kib(pid) for pid in gateway.worker_pids()]
        (control,) = gateway.titled("control")
        with capsys.disabled():
            print(f"\nPSS: workers {sizes} KiB, control {pss_kib(control)} KiB, master {pss_kib(gateway.pid)} KiB")
        assert max(*sizes, pss_kib(control)) < 50 * 1024


@pytest.mark.parametrize(
    ("size", "chunked"),
    [
        pytest.param(100 * MIB, False, id="100 MiB"),
        pytest.param(1024 * MIB, False, id="1 GiB", marks=LONG),
        pytest.param(1024 * MIB, True, id="1 GiB chunked", marks=LONG),
    ],
)
def test_a_large_download_passes_a_slow_client(size: int, chunked: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with EchoGateway() as gateway, RawClient(gateway.port, remember=False) as client:
        assert gateway.get().status == 200
        with Peak(gateway) as peak:
            client.send(request("GET", f"/bytes/{size}{'?chunked=1' if chunked else ''}"))
            incoming = client.start_response()
            assert incoming.status == 200
            taken = len(client.buffer)
            client.buffer.clear()
            taken += take_slowly(client.sock, size - taken)
        assert taken >= size
        with capsys.disabled():
            print(f"\n{size // MIB} MiB down ({incoming.response.framing}): the processes grew by {peak.growth} KiB")
        assert peak.growth < GROWTH_KIB


@pytest.mark.parametrize(
    ("size", "chunked"),
    [
        pytest.param(100 * MIB, True, id="100 MiB chunked"),
        pytest.param(1024 * MIB, False, id="1 GiB", marks=LONG),
        pytest.param(1024 * MIB, True, id="1 GiB chunked", marks=LONG),
    ],
)
def test_a_large_upload_passes_a_slow_target(
    size: int, chunked: bool, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str]
) -> None:
    came: list[int] = []

    def serve(connection: UpstreamConnection, received: Received) -> None:
        connection.remember = False
        early = len(connection.buffer)
        connection.buffer.clear()
        came.append(early + take_slowly(connection.sock, size - early))
        connection.respond()
        connection.finish()

    upstream.serve(serve)
    routes = {"slow": {"host": "slow.test", "to": upstream.url}}
    with EchoGateway(routes=routes) as gateway, RawClient(gateway.port) as client:
        assert gateway.get().status == 200
        piece = os.urandom(_PIECE)
        with Peak(gateway) as peak:
            framing = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(size)}
            client.send(request("POST", "/", framing, host="slow.test"))
            for _ in range(size // _PIECE):
                client.send(b"%x\r\n%b\r\n" % (_PIECE, piece) if chunked else piece, timeout=20)
            if chunked:
                client.send(b"0\r\n\r\n")
            assert client.read_response(timeout=20).status == 200
        assert came[0] >= size
        with capsys.disabled():
            print(f"\n{size // MIB} MiB up: the processes grew by {peak.growth} KiB")
        assert peak.growth < GROWTH_KIB


def test_many_slow_downloads_at_once_stay_within_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    """Fifty clients that take nothing: each costs its buffers and no more, whatever the size of what it asked for."""
    with EchoGateway() as gateway:
        assert gateway.get().status == 200
        clients = [RawClient(gateway.port, receive_buffer=4096, remember=False) for _ in range(50)]
        try:
            with Peak(gateway) as peak:
                for client in clients:
                    client.send(request("GET", "/bytes/100000000"))
                wait_until(lambda: sum(worker["in_flight"] for worker in gateway.status()["workers"]) == 50, 5)
                time.sleep(1.5)  # the time in which memory would grow without a bound
            with capsys.disabled():
                print(f"\n50 stalled downloads of 100 MB: the processes grew by {peak.growth} KiB")
            assert peak.growth < GROWTH_KIB
        finally:
            for client in clients:
                client.close()
        wait_until(lambda: sum(worker["in_flight"] for worker in gateway.status()["workers"]) == 0, 5)


@pytest.mark.parametrize(
    ("total", "fresh"),
    [pytest.param(10_000, False, id="kept"), pytest.param(10_000, True, id="fresh", marks=LONG)],
)
def test_10000_requests_on_64_connections_without_an_error(
    total: int, fresh: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with EchoGateway(workers=2) as gateway:
        began = time.monotonic()
        with Storm(gateway.port, connections=64, total=total, fresh=fresh) as storm:
            storm.join(50)
        took = time.monotonic() - began
        assert storm.outcomes == {200: total}, storm.details[:5]
        with capsys.disabled():
            slowest = max(storm.latencies) * 1000
            print(f"\n{total} requests on 64 connections in {took:.1f} s, slowest {slowest:.0f} ms")
        wait_until(lambda: len(gateway.access_log()) == total, 3)


# What makes a head large: each alone, up to what the limits take.
LARGE_HEADS = {
    "many lines": [(f"X-Large-{number}", "v" * 490) for number in range(120)],
    "one line": [("Cookie", "a=" + "v" * 60_000)],
    "browser": [("Cookie", "a=" + "v" * 3000), ("User-Agent", "u" * 250), ("Referer", "http://a.test/" + "r" * 250)],
}


@pytest.mark.parametrize(
    ("connections", "kind"),
    [(400, "many lines")]
    + [pytest.param(400, kind, marks=LONG) for kind in LARGE_HEADS if kind != "many lines"]
    + [pytest.param(10_000, "many lines", marks=LONG)],
)
def test_an_idle_connection_is_small_whatever_came_before(
    connections: int, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = {"timeouts": {**PATIENT["server"]["timeouts"], "keepalive": "10m"}}
    route = {"fixed": {"host": "fixed.test", "respond": {"body": "hello"}}}
    with EchoGateway(routes=route, server=server) as gateway, contextlib.ExitStack() as stack:
        (worker,) = gateway.worker_pids()
        hosts = ["fixed.test"] * (connections - 40) + ["wire.test"] * 40
        for host in (*hosts[:20], *hosts[-20:]):
            with RawClient(gateway.port) as client:
                client.send(request("GET", "/" + "p" * 15_000, LARGE_HEADS[kind], host=host))
                client.read_response()
        before = private_kib(worker)
        for number, host in enumerate(hosts):
            client = stack.enter_context(RawClient(gateway.port, remember=False))
            client.send(request("GET", f"/{number}" + "p" * 1000, LARGE_HEADS[kind], host=host))
            assert client.read_response().status == 200
        # They are forgotten after some seconds of rest.
        wait_until(lambda: private_kib(worker) - before < 8 * connections, 15, "8 KiB each at most")
        with capsys.disabled():
            each = (private_kib(worker) - before) / connections
            print(f"\n{connections} idle connections after heads of {kind}: {each:.1f} KiB each")
