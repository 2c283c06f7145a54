"""The echo upstream, over real sockets; what it decides, without."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from devhost_server.echo.answers import (
    MAX_BYTES,
    Bulk,
    Delayed,
    Events,
    Reply,
    Request,
    content,
    decide,
    malformed,
)
from devhost_server.echo.connection import MAX_HEAD
from tests.support.waiting import patient

PATIENCE = 10.0


@dataclass(frozen=True)
class Echo:
    """A running echo process."""

    process: subprocess.Popen[str]
    port: int

    @property
    def rss(self) -> int:
        """Resident memory in bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def talk(self, *pieces: bytes) -> bytes:
        """Send the pieces, half-close, and return everything until the end of the stream."""
        with self.connect() as peer:
            for piece in pieces:
                peer.sendall(piece)
            peer.shutdown(socket.SHUT_WR)
            return read_all(peer)


def read_all(peer: socket.socket) -> bytes:
    data = b""
    while piece := peer.recv(1 << 16):
        data += piece
    return data


def read_until(peer: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        piece = peer.recv(1 << 16)
        assert piece, f"the stream ended before {end!r}: {data!r}"
        data += piece
    return data


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)


@contextmanager
def running() -> Iterator[Echo]:
    command = [sys.executable, "-m", "devhost_server.echo", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        try:
            yield Echo(process, port)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    with running() as server:
        yield server


@pytest.fixture
def own_echo() -> Iterator[Echo]:
    with running() as server:
        yield server


def get(target: str, *fields: str, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: echo.test", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


CLOSE = "Connection: close"


def split(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), fields, body


def statuses(answers: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


def unchunk(body: bytes) -> bytes:
    data = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if not int(size, 16):
            assert body == b"\r\n"
            return data
        data += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]


# --- deciding -------------------------------------------------------------------------------------------------------


def asked(target: str, **given: object) -> Request:
    request = Request(method="GET", target=target.encode(), headers=[(b"Host", b"echo.test")])
    for name, value in given.items():
        setattr(request, name, value)
    return request


def answer(target: str) -> Reply | Delayed | Bulk | Events:
    return decide(asked(target), "127.0.0.1:1", 7)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/bytes/0", Bulk(0, chunked=False)),
        ("/bytes/12?chunked=1", Bulk(12, chunked=True)),
        ("http://echo.test/bytes/12", Bulk(12, chunked=False)),
        (f"/bytes/{MAX_BYTES}", Bulk(MAX_BYTES, chunked=False)),
        ("/sse", Events(None, 1.0)),
        ("/sse?count=3&interval=0.5", Events(3, 0.5)),
        ("/sse?count=0", Events(0, 1.0)),
        ("/status/418", Reply(418, b'{"status":418}\n')),
        ("/status/204", Reply(204)),
    ],
)
def test_an_endpoint_is_chosen_by_its_path(target: str, expected: object) -> None:
    assert answer(target) == expected


@pytest.mark.parametrize(
    "target",
    [
        "/bytes/",
        "/bytes/-1",
        "/bytes/1e3",
        f"/bytes/{MAX_BYTES + 1}",
        "/bytes/١",
        "/delay/3601",
        "/delay/nan",
        "/delay/-0.1",
        "/status/199",
        "/status/600",
        "/status/2000",
        "/sse?interval=x",
        "/sse?count=1.5",
    ],
)
def test_a_value_out_of_bounds_is_refused_with_what_is_allowed(target: str) -> None:
    refusal = answer(target)
    assert isinstance(refusal, Reply)
    assert (refusal.status, refusal.close) == (400, True)
    assert "must be a" in json.loads(refusal.body)["error"]


@pytest.mark.parametrize("target", ["/", "/bytes", "/delay", "/ssee", "/headers/x", "*", "/a%2Fb//c?", "http://h"])
def test_any_other_path_is_shown_as_it_came(target: str) -> None:
    shown = answer(target)
    assert isinstance(shown, Reply)
    assert json.loads(shown.body)["target"] == target


def test_a_delayed_answer_is_the_plain_one() -> None:
    delayed = answer("/delay/1.25")
    assert isinstance(delayed, Delayed)
    assert delayed.seconds == 1.25
    assert json.loads(delayed.reply.body)["target"] == "/delay/1.25"


@given(st.lists(st.tuples(st.binary(min_size=1), st.binary())))
def test_header_bytes_can_be_had_back_from_the_answer(fields: list[tuple[bytes, bytes]]) -> None:
    reply = decide(asked("/headers", headers=fields), "127.0.0.1:1", 7)
    assert isinstance(reply, Reply)
    shown = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in json.loads(reply.body)["headers"]]
    assert shown == fields


@given(st.integers(0, 3_000_000))
def test_content_has_the_asked_size_and_its_bytes_tell_their_offset(size: int) -> None:
    data = b"".join(content(size))
    assert len(data) == size
    assert all(data[offset] == offset % 251 for offset in {0, size // 3, size // 2, size - 1} if 0 <= offset < size)


@pytest.mark.parametrize("hosts", [0, 2])
def test_exactly_one_host_field_is_asked_for(hosts: int) -> None:
    refusal = malformed(asked("/", headers=[(b"hOst", b"a")] * hosts))
    assert refusal is not None
    assert refusal.status == 400


def test_http_1_0_needs_no_host_field() -> None:
    assert malformed(asked("/", headers=[], version="1.0")) is None


# --- HTTP on the wire -----------------------------------------------------------------------------------------------


def test_headers_are_shown_in_order_case_and_number_as_received(echo: Echo) -> None:
    sent = [
        ["Host", "echo.test"],
        ["x-B", "2"],
        ["X-a", "1"],
        ["X-A", "caf\xe9"],
        ["X-Empty", ""],
        ["Connection", "close"],
    ]
    lines = [f"{name}: {value}" for name, value in sent[1:]]
    status, fields, body = split(echo.talk(get("/x%2Fy//?a=1", *lines, "X-Request-ID: abc")))
    shown = json.loads(body)
    assert status == 200
    assert fields["content-type"] == "application/json"
    assert shown["headers"] == [*sent, ["X-Request-ID", "abc"]]
    assert shown["target"] == "/x%2Fy//?a=1"
    assert shown["request_id"] == "abc"
    assert shown["worker"] == echo.process.pid
    assert shown["client"].startswith("127.0.0.1:")


def test_a_body_sent_one_byte_at_a_time_is_digested(echo: Echo) -> None:
    body = b"5\r\nhello\r\n000001;x=y\r\n!\r\n0\r\nX-Trailer: t\r\n\r\n"
    request = get("/", "Transfer-Encoding: chunked", CLOSE, method="POST", body=body)
    with echo.connect() as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request:
            peer.sendall(bytes([byte]))
        shown = json.loads(split(read_all(peer))[2])
    assert shown["body"] == {"length": 6, "sha256": hashlib.sha256(b"hello!").hexdigest()}
    assert shown["trailers"] == [["X-Trailer", "t"]]
    assert ["X-Trailer", "t"] not in shown["headers"]


@pytest.mark.parametrize("method", ["POST", "PUT", "GET", "DELETE"])
def test_an_upload_is_answered_with_its_digest(echo: Echo, method: str) -> None:
    body = os.urandom(3 << 20)
    answer = echo.talk(get("/upload", f"Content-Length: {len(body)}", CLOSE, method=method, body=body))
    assert json.loads(split(answer)[2]) == {"length": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def test_pipelined_requests_are_answered_in_order_though_the_first_is_slow(echo: Echo) -> None:
    targets = ["/delay/0.2", "/one", "/bytes/3?chunked=1", "/two"]
    with echo.connect() as peer:
        peer.sendall(b"".join(get(target) for target in targets) + get("/last", CLOSE))
        answers = read_all(peer)
    assert statuses(answers) == [200] * 5
    order = [answers.index(mark) for mark in (b'"/delay/0.2"', b'"/one"', b"3\r\n\x00\x01\x02", b'"/two"', b'"/last"')]
    assert order == sorted(order)


def test_many_pipelined_requests_are_all_answered(echo: Echo) -> None:
    answers = echo.talk(get("/bytes/1000000") + get("/status/299") * 5000 + get("/status/298", CLOSE))
    assert statuses(answers) == [200, *[299] * 5000, 298]


def test_a_connection_is_kept_until_the_client_asks_otherwise(echo: Echo) -> None:
    with echo.connect() as peer:
        for _ in range(3):
            peer.sendall(get("/status/200"))
            assert b"Connection:" not in read_until(peer, b"200}\n")
        peer.sendall(get("/status/200", CLOSE))
        assert b"Connection: close\r\n" in read_all(peer)


def test_http_1_0_is_closed_unless_it_asks_to_be_kept(echo: Echo) -> None:
    with echo.connect() as peer:
        peer.sendall(get("/status/200", "Connection: keep-alive", version="1.0"))
        assert b"Connection: keep-alive\r\n" in read_until(peer, b"200}\n")
        peer.sendall(get("/bytes/5?chunked=1", "Connection: keep-alive", version="1.0"))
        _, fields, body = split(read_all(peer))
    assert "transfer-encoding" not in fields
    assert "content-length" not in fields
    assert fields["connection"] == "close"
    assert body == bytes(range(5))


def test_100_continue_comes_before_the_body_and_after_earlier_answers(echo: Echo) -> None:
    with echo.connect() as peer:
        expecting = get("/upload", "Content-Length: 2", "Expect: 100-Continue", CLOSE, method="POST")
        peer.sendall(get("/delay/0.1") + expecting)
        first = read_until(peer, b"HTTP/1.1 100 Continue\r\n\r\n")
        assert statuses(first) == [200, 100]
        peer.sendall(b"ok")
        assert json.loads(split(read_all(peer))[2])["length"] == 2


@pytest.mark.parametrize("target", ["/", "/bytes/100", "/bytes/100?chunked=1", "/sse", "/status/404", "/headers"])
def test_head_has_the_fields_of_get_and_no_body(echo: Echo, target: str) -> None:
    _, fields, body = split(echo.talk(get(target, CLOSE, method="HEAD")))
    assert body == b""
    assert ("content-length" in fields) != ("transfer-encoding" in fields)


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_body_leaves_the_connection_usable(echo: Echo, status: int) -> None:
    assert statuses(echo.talk(get(f"/status/{status}"), get("/status/201", CLOSE))) == [status, 201]


@pytest.mark.parametrize("size", [0, 1, 251 * 1024, 1_000_003])
@pytest.mark.parametrize("query", ["", "?chunked=1"])
def test_bytes_are_the_same_with_and_without_a_length(echo: Echo, size: int, query: str) -> None:
    _, fields, body = split(echo.talk(get(f"/bytes/{size}{query}", CLOSE)))
    if query:
        assert fields["transfer-encoding"] == "chunked"
        body = unchunk(body)
    else:
        assert fields["content-length"] == str(size)
    assert body == b"".join(content(size))


def test_a_client_that_does_not_read_costs_no_memory(own_echo: Echo) -> None:
    with own_echo.connect() as warm:
        warm.sendall(get("/bytes/1", CLOSE))
        read_all(warm)
    before = own_echo.rss
    with own_echo.connect() as peer:
        peer.sendall(get("/bytes/1000000000") + get("/status/200") * 20_000)
        read_until(peer, b"\r\n\r\n")
        assert own_echo.talk(get("/status/200", CLOSE))  # it goes on serving others
        left = 64 << 20
        while left > 0:
            left -= len(peer.recv(1 << 20))
        assert own_echo.rss - before < 16 << 20


def test_sse_sends_each_event_when_it_happens(echo: Echo) -> None:
    with echo.connect() as peer:
        peer.sendall(get("/sse?count=2&interval=0.3", CLOSE))
        first = read_until(peer, b"\n\n\r\n")
        began = time.monotonic()
        rest = read_all(peer)
    assert time.monotonic() - began > 0.2
    status, fields, body = split(first + rest)
    assert (status, fields["content-type"]) == (200, "text/event-stream")
    events = unchunk(body).decode().split("\n\n")
    assert [event.split("\n")[0] for event in events] == ["id: 1", "id: 2", ""]
    assert json.loads(events[1].rpartition("data: ")[2]) == {"n": 2, "worker": echo.process.pid}


@pytest.mark.parametrize("target", ["/sse", "/delay/3600"])
def test_a_client_that_leaves_ends_what_it_waited_for(own_echo: Echo, target: str) -> None:
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{own_echo.process.pid}/fd"))

    own_echo.talk(get("/status/200", CLOSE))
    idle = descriptors()
    with own_echo.connect() as peer:
        peer.sendall(get(target))
        wait_for(lambda: descriptors() == idle + 1, "the connection is accepted")
    wait_for(lambda: descriptors() == idle, "the connection is closed")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n\x16\x03", 405),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (MAX_HEAD + (300 << 10)), 431),
        (b"GET /bytes/x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ],
)
def test_bad_input_is_answered_after_what_came_before_it_and_the_connection_closed(
    echo: Echo, request_bytes: bytes, status: int
) -> None:
    with echo.connect() as peer:
        peer.sendall(get("/delay/0.05") + request_bytes)
        answers = read_all(peer)  # ends although this side stays open
    assert statuses(answers) == [200, status]
    assert b"Connection: close\r\n" in answers


def test_a_refusal_survives_a_client_that_goes_on_sending(echo: Echo) -> None:
    with echo.connect() as peer:
        peer.sendall(b"POST / HTTP/1.1\r\nContent-Length: 30000000\r\n\r\n")
        sent: list[BaseException | None] = []

        def flood() -> None:
            try:
                peer.sendall(b"x" * 3_000_000)
            except OSError as error:
                sent.append(error)
            else:
                sent.append(None)

        sender = threading.Thread(target=flood)
        sender.start()
        answer = read_all(peer)
        sender.join(PATIENCE)
    assert statuses(answer) == [400]
    assert sent == [None]


def test_an_upgrade_that_is_not_spoken_is_ignored_and_the_body_kept(echo: Echo) -> None:
    fields = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    first = get("/first", *fields, "Content-Length: 5", method="POST", body=b"hello")
    chunked = get("/second", *fields, "Transfer-Encoding: chunked", method="POST", body=b"2\r\nhi\r\n0\r\n\r\n")
    answers = echo.talk(first + chunked + get("/third", *fields), get("/fourth", CLOSE))
    shown = [json.loads(body) for body in re.findall(rb"\r\n\r\n(\{.*\})\n", answers)]
    assert [one["target"] for one in shown] == ["/first", "/second", "/third", "/fourth"]
    assert [one["body"]["length"] for one in shown] == [5, 2, 0, 0]
    assert ["Upgrade", "h2c"] in shown[0]["headers"]


# --- WebSocket ------------------------------------------------------------------------------------------------------


def url(echo: Echo, path: str = "/ws") -> str:
    return f"ws://127.0.0.1:{echo.port}{path}"


WS_FIELDS = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
WS_KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="


def masked(first: int, payload: bytes) -> bytes:
    return bytes([first, 0x80 | len(payload), 0, 0, 0, 0]) + payload


@pytest.mark.parametrize("compression", ["deflate", None])
def test_messages_come_back_as_they_were(echo: Echo, compression: str | None) -> None:
    with connect(url(echo), compression=compression, max_size=None, proxy=None) as client:
        assert bool(client.protocol.extensions) is (compression is not None)
        for message in ("grüße", "", b"", b"\x00\xff" * 10, "x" * 100_000, os.urandom(3 << 20)):
            client.send(message)
            assert client.recv(timeout=PATIENCE) == message


def test_fragments_keep_their_boundaries(echo: Echo) -> None:
    with connect(url(echo), proxy=None) as client:
        client.send(["gr", "ü", "ße"])
        # The end of a fragmented message is an empty final frame in this client.
        assert list(client.recv_streaming()) == ["gr", "ü", "ße", ""]


def test_a_ping_is_answered_in_the_midst_of_a_fragmented_message(echo: Echo) -> None:
    with echo.connect() as peer:
        frames = masked(0x01, b"a") + masked(0x89, b"hi") + masked(0x80, b"b")
        peer.sendall(get("/ws", *WS_FIELDS, WS_KEY) + frames)
        received = read_until(peer, b"\x80\x01b").partition(b"\r\n\r\n")[2]
    pong = b"\x8a\x02hi"
    assert received.count(pong) == 1
    assert received.replace(pong, b"") == b"\x01\x01a\x80\x01b"


def test_a_close_comes_back_with_its_code_and_reason(echo: Echo) -> None:
    with connect(url(echo), proxy=None) as client:
        client.close(4321, "enough")
        assert client.protocol.close_rcvd is not None
        assert (client.protocol.close_rcvd.code, client.protocol.close_rcvd.reason) == (4321, "enough")


@pytest.mark.parametrize(("asked_for", "code"), [("4001", 4001), ("1000", 1000), ("1005", 1008), ("x", 1008)])
def test_the_server_closes_first_when_asked(echo: Echo, asked_for: str, code: int) -> None:
    with connect(url(echo, f"/ws?close={asked_for}"), proxy=None) as client:
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=PATIENCE)
        assert client.close_code == code


def test_the_first_subprotocol_offered_is_agreed_to(echo: Echo) -> None:
    with connect(url(echo), subprotocols=["b", "a"], proxy=None) as client:  # type: ignore[list-item]
        assert client.subprotocol == "b"


def test_frames_glued_to_the_handshake_and_behind_another_request_are_echoed(echo: Echo) -> None:
    with echo.connect() as peer:
        peer.sendall(get("/delay/0.1") + get("/ws", *WS_FIELDS, WS_KEY) + masked(0x81, b"PING"))
        peer.sendall(masked(0x82, b"more"))
        data = read_until(peer, b"\x82\x04more")
        assert statuses(data) == [200, 101]
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in data
        assert b"\r\n\r\n\x81\x04PING" in data


def test_text_that_is_not_utf_8_across_fragments_fails_the_connection(echo: Echo) -> None:
    with echo.connect() as peer:
        peer.sendall(get("/ws", *WS_FIELDS, WS_KEY) + masked(0x01, b"\xc3") + masked(0x80, b"\x28"))
        data = read_all(peer)
    assert b"\x03\xef" in data.partition(b"\r\n\r\n")[2]  # 1007


def test_a_handshake_without_a_key_is_refused(echo: Echo) -> None:
    assert statuses(echo.talk(get("/ws", *WS_FIELDS))) == [400]


def test_a_plain_request_for_the_websocket_is_told_to_upgrade(echo: Echo) -> None:
    status, fields, _ = split(echo.talk(get("/ws", CLOSE)))
    assert (status, fields["upgrade"]) == (426, "websocket")


# --- the process ----------------------------------------------------------------------------------------------------


def test_sigterm_finishes_what_is_in_flight_and_ends_the_rest(own_echo: Echo) -> None:
    with own_echo.connect() as busy, own_echo.connect() as idle, connect(url(own_echo), proxy=None) as websocket:
        idle.sendall(get("/status/200"))
        read_until(idle, b"200}\n")
        busy.sendall(get("/delay/0.5"))
        wait_for(lambda: own_echo.talk(get("/status/200")) != b"", "requests sent before have arrived")
        began = time.monotonic()
        own_echo.process.send_signal(signal.SIGTERM)
        assert read_all(idle) == b""
        with pytest.raises(ConnectionClosed):
            websocket.recv(timeout=PATIENCE)
        assert websocket.close_code == 1001
        assert time.monotonic() - began < patient(0.4)
        status, fields, _ = split(read_all(busy))
    assert (status, fields["connection"]) == (200, "close")
    assert own_echo.process.wait(PATIENCE) == 0


def test_sigterm_waits_a_second_and_no_longer(own_echo: Echo) -> None:
    with own_echo.connect() as endless:
        endless.sendall(get("/sse"))
        read_until(endless, b"\n\n\r\n")
        began = time.monotonic()
        own_echo.process.send_signal(signal.SIGTERM)
        assert own_echo.process.wait(PATIENCE) == 0
        assert 0.9 < time.monotonic() - began < patient(2.5)
        with suppress(ConnectionError):
            assert b"0\r\n\r\n" not in read_all(endless), "a cut stream must not look whole"


FORKING_MASTER = """
import os, signal, sys, time
from devhost_server.echo import serve
from devhost_server.sockets.listeners import listen
from devhost_server.options import Bind
listener = listen(Bind("127.0.0.1", 0))
signal.signal(signal.SIGTERM, lambda *_: None)
master = os.getpid()
child = os.fork()
if child == 0:
    serve(listener, parent=master)
    os._exit(0)
listener_port = listener.getsockname()[1]
listener.close()
print(child, listener_port, flush=True)
os.waitpid(child, 0)
print("gone", flush=True)
time.sleep(60)
"""


@pytest.fixture
def forked() -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    with subprocess.Popen([sys.executable, "-c", FORKING_MASTER], stdout=subprocess.PIPE, text=True) as master:
        assert master.stdout is not None
        child, port = map(int, master.stdout.readline().split())
        try:
            yield master, child, port
        finally:
            master.kill()


def answers_on(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as peer:
            peer.sendall(get("/status/200", CLOSE))
            return read_all(peer).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def test_it_does_not_outlive_its_parent(forked: tuple[subprocess.Popen[str], int, int]) -> None:
    master, _, port = forked
    wait_for(lambda: answers_on(port), "the forked process serves")
    master.kill()
    wait_for(lambda: not answers_on(port), "the port is free")


def test_signals_for_the_group_are_the_masters_business(forked: tuple[subprocess.Popen[str], int, int]) -> None:
    master, child, port = forked
    wait_for(lambda: answers_on(port), "the forked process serves")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN):
        os.kill(child, number)
    assert answers_on(port)
    os.kill(child, signal.SIGQUIT)
    assert master.stdout is not None
    assert master.stdout.readline() == "gone\n"


def test_it_listens_on_a_unix_socket_too(tmp_path: Path) -> None:
    path = tmp_path / "echo.sock"
    command = [sys.executable, "-m", "devhost_server.echo", f"unix:{path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"echo upstream on unix:{path}\n"
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(PATIENCE)
            peer.connect(str(path))
            peer.sendall(get("/", CLOSE))
            assert json.loads(split(read_all(peer))[2])["client"] == "unix"
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("bind", ["nowhere", "127.0.0.1:{taken}", "unix:/proc/none/x.sock"])
def test_an_address_that_cannot_be_had_is_a_sentence(echo: Echo, bind: str) -> None:
    command = [sys.executable, "-m", "devhost_server.echo", bind.format(taken=echo.port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 1
    assert re.match(r"Error: (cannot listen on|'nowhere' is not an address) ", done.stderr)
    assert "Traceback" not in done.stderr
