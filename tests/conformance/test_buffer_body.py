"""Chunked bodies that are sent with a length (`buffer_body`), to servers that know nothing else."""

import http.server
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import werkzeug.serving

from tests.support import Gateway, RawClient, Received, ScriptedUpstream, UpstreamConnection, wait_until
from tests.support.door import WireUnderTest, opened
from tests.support.gateway import rss_kib
from tests.support.messages import chunk, chunked
from tests.support.upstream import echo
from tests.support.waiting import seconds_since

SIZE = 100_000
CHUNKED = {"Transfer-Encoding": "chunked"}
EXPECTING = CHUNKED | {"Expect": "100-continue"}


@pytest.fixture(scope="module")
def buffering_gateway(upstream_listener: ScriptedUpstream) -> Iterator[Gateway]:
    """Routes by host: with a buffer, with a small one, with trailers, with two targets, with none."""
    url, dead = upstream_listener.url, "http://127.0.0.1:1"
    config = {
        "server": {
            "workers": 1,
            "timeouts": {"body_idle": "2s", "body_rate": "10kB/s"},
            "limits": {"body": 300_000},
            "drain": {"timeout": "1s"},
        },
        "defaults": {"timeouts": {"response": "20s"}, "buffer_body": SIZE},
        "upstreams": {"named": {"targets": [url]}},
        "routes": {
            "named": {"host": "wire.test", "upstream": "named"},
            "small": {"host": "small.test", "to": url, "buffer_body": 10},
            "trailers": {"host": "trailers.test", "to": url, "buffer_body": SIZE, "trailers": True},
            "two": {"host": "two.test", "to": [dead, url], "buffer_body": SIZE},
            "few": {"host": "few.test", "to": url, "buffer_body": SIZE, "pool": {"max_connections": 2}},
            "none": {"host": "none.test", "to": url, "buffer_body": None},
        },
    }
    with Gateway(config) as gateway:
        yield gateway


@pytest.fixture
def wire(buffering_gateway: Gateway, upstream: ScriptedUpstream) -> Iterator[WireUnderTest]:
    with opened(buffering_gateway) as door:
        yield door


def framing(received: Received) -> tuple[str, str]:
    return received.headers.get("content-length"), received.headers.get("transfer-encoding")


# --- what is sent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1000, 65_536, SIZE - 1, SIZE])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "QUERY"])
def test_a_body_up_to_the_size_has_a_length(
    wire: WireUnderTest, upstream: ScriptedUpstream, size: int, method: str
) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    pieces = [body[at : at + 7000] for at in range(0, size, 7000)]
    assert wire.ask(method, "/", chunks=pieces).status == 200
    assert framing(upstream.only) == (str(size), "")
    assert upstream.only.body == body
    assert len(upstream.only.headers.all("content-length")) == 1


def test_one_that_comes_slowly_is_waited_for(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = wire.send("POST", "/slow", CHUNKED)
    for _ in range(30):
        client.send(chunk(b"x" * 3000))
        time.sleep(0.05)  # longer in all than an ordinary upload waits for its connection
    assert not upstream.requests
    assert not upstream.connections
    client.send(b"0\r\n\r\n")
    assert client.read_response().status == 200
    assert framing(upstream.only) == ("90000", "")
    assert upstream.only.body == b"x" * 90_000


def test_many_small_pieces_arrive_in_order(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    body = bytes(number % 251 for number in range(6000))
    client = wire.send("POST", "/small", CHUNKED)
    client.dribble(chunked(*(body[at : at + 3] for at in range(0, 6000, 3))), 8)
    assert client.read_response().status == 200
    assert framing(upstream.only) == ("6000", "")
    assert upstream.only.body == body


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(("host", "size"), [("wire.test", SIZE), ("small.test", 10)])
@pytest.mark.parametrize("more", [1, 50_000, 190_000])
def test_a_larger_one_goes_in_chunks(
    wire: WireUnderTest, upstream: ScriptedUpstream, host: str, size: int, more: int, at_once: bool
) -> None:
    body = b"x" * (size + more)
    client = wire.connect()
    client.send(wire.request("POST", "/", CHUNKED, host=host))
    if at_once:
        client.send(chunked(body))
    else:
        client.send(chunk(body[:size]))
        client.send(chunk(body[size:]))
        if more > 20_000:  # enough for a connection: what follows goes through
            upstream.wait_requests()
            client.send(chunk(b"and more"))
            body += b"and more"
        client.send(b"0\r\n\r\n")
    assert client.read_response().status == 200
    assert framing(upstream.only) == ("", "chunked")
    assert upstream.only.body == body


def test_a_length_and_no_body_are_left_as_they_are(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = wire.send("POST", "/", {"Content-Length": "40000"})
    client.send(b"x" * 20_000)
    upstream.wait_requests()  # it is not waited for
    client.send(b"x" * 20_000)
    assert client.read_response().status == 200
    assert framing(upstream.only) == ("40000", "")
    upstream.forget()
    assert wire.ask().status == 200
    assert framing(upstream.only) == ("", "")


def test_without_it_chunks_stay_chunks(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert wire.ask("POST", "/", chunks=[b"x"], host="none.test").status == 200
    assert framing(upstream.only) == ("", "chunked")


def test_one_connection_many_bodies(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(echo)
    client = wire.connect()
    requests = [wire.request("POST", f"/{number}", chunks=[b"body %d" % number]) for number in range(5)]
    client.send(b"".join(requests) + wire.request())  # pipelined
    assert [client.read_response().body for _ in range(6)] == [b"body %d" % number for number in range(5)] + [b""]


# --- trailers --------------------------------------------------------------------------------------------------------


def test_trailers_are_dropped_with_the_chunks(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    head = wire.request("POST", "/", CHUNKED | {"Trailer": "X-Sum"})
    assert wire.exchange(head + chunked(b"abc", trailers={"X-Sum": "1"})).status == 200
    assert framing(upstream.only) == ("3", "")
    assert b"sum" not in upstream.received.lower()


def test_trailers_that_are_passed_on_keep_the_chunks(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    head = wire.request("POST", "/", CHUNKED | {"Trailer": "X-Sum"}, host="trailers.test")
    assert wire.exchange(head + chunked(b"abc", trailers={"X-Sum": "1"})).status == 200
    assert framing(upstream.only) == ("", "chunked")
    assert upstream.only.trailers["X-Sum"] == "1"
    upstream.forget()
    assert wire.exchange(head + chunked(b"abc")).status == 200  # announced, and then there are none
    assert framing(upstream.only) == ("3", "")
    assert not upstream.only.headers.all("trailer")


# --- Expect ----------------------------------------------------------------------------------------------------------


def test_the_gateway_itself_says_100_once(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    def continuing(connection: UpstreamConnection, received: Received) -> None:
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        echo(connection, received)

    upstream.serve(continuing)
    client = wire.send("POST", "/", EXPECTING)
    assert client.read_interim()[0] == 100
    assert not upstream.connections
    client.send(chunk(b"hello"))
    assert client.silent(0.2)
    client.send(b"0\r\n\r\n")
    answer = client.read_response()
    assert (answer.status, answer.body, answer.informational) == (200, b"hello", [])
    assert framing(upstream.only) == ("5", "")
    assert not upstream.only.headers.all("expect")


@pytest.mark.parametrize("host", ["wire.test", "trailers.test"])
def test_nor_is_it_passed_on_with_chunks_then(wire: WireUnderTest, upstream: ScriptedUpstream, host: str) -> None:
    client = wire.connect()
    client.send(wire.request("POST", "/", EXPECTING, host=host))
    assert client.read_interim()[0] == 100
    pieces, trailers = ([b"x"], {"X-Sum": "1"}) if host == "trailers.test" else ([b"x" * 20_000] * 6, {})
    client.send(chunked(*pieces, trailers=trailers))
    answer = client.read_response()
    assert (answer.status, answer.informational) == (200, [])
    assert framing(upstream.only) == ("", "chunked")
    assert not upstream.only.headers.all("expect")


def test_who_does_not_wait_for_a_100_gets_his_answer_too(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    answer = wire.exchange(wire.request("POST", "/", EXPECTING) + chunked(b"abc"))
    assert answer.status == 200
    assert framing(upstream.only) == ("3", "")
    assert not upstream.only.headers.all("expect")


def test_who_says_nothing_after_the_100_is_cut(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = wire.send("POST", "/", EXPECTING)
    assert client.read_interim()[0] == 100
    wire.expect_refused(client, 408, "RT")
    assert not upstream.requests


def test_from_http_10_there_are_no_chunks_to_replace(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    wire.expect_refused(wire.send("POST", "/", CHUNKED, version="HTTP/1.0"), 400, "BR")
    answer = wire.ask("POST", "/", body=b"abc", version="HTTP/1.0")
    assert answer.status == 200
    assert framing(upstream.only) == ("3", "")


# --- bodies that never come whole ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status", "flag"),
    [
        (chunk(b"x" * 1000), 408, "RT"),  # and then nothing
        (chunk(b"x" * 1000) + b"zz\r\n", 400, "BR"),
        (chunk(b"x" * 1000) + b"0\r\nno trailer\r\n\r\n", 400, "BR"),
    ],
    ids=["stops", "malformed", "bad trailers"],
)
def test_nothing_of_it_reaches_the_target(
    wire: WireUnderTest, upstream: ScriptedUpstream, sent: bytes, status: int, flag: str
) -> None:
    client = wire.send("POST", "/", CHUNKED)
    assert client.silent(0.1)
    client.send(sent)
    wire.expect_refused(client, status, flag)
    assert not upstream.requests


def test_one_that_drips_is_cut(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client, start = wire.send("POST", "/", CHUNKED), time.monotonic()
    while client.silent(0.2):
        assert seconds_since(start) < 20
        with suppress(OSError):
            client.send(chunk(b"x"))
    wire.expect_refused(client, 408, "RT")
    assert not upstream.requests


def test_the_limit_of_bodies_holds(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = wire.send("POST", "/", CHUNKED)
    for _ in range(8):
        with suppress(OSError):
            client.send(chunk(b"x" * 50_000))
    wire.expect_own(client.read_response(), 413, "TL")
    assert not upstream.complete_requests


@pytest.mark.parametrize("leave", [RawClient.reset, RawClient.close], ids=["reset", "close"])
def test_a_client_that_leaves_leaves_nothing(
    wire: WireUnderTest, upstream: ScriptedUpstream, leave: Callable[[RawClient], None]
) -> None:
    client = wire.send("POST", f"/left-{leave.__name__}", CHUNKED)
    client.send(chunk(b"x" * 1000))
    assert client.silent(0.1)
    leave(client)
    assert wire.gateway
    assert wire.gateway.access_entry(target=f"/left-{leave.__name__}", flag="DC")
    assert not upstream.requests


def test_bodies_that_are_still_coming_take_no_connection(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    coming = [wire.send("POST", "/slow", CHUNKED, host="few.test") for _ in range(10)]
    for client in coming:
        client.send(chunk(b"x" * 70_000))
    for _ in range(3):
        assert wire.ask(host="few.test").status == 200
    assert {received.target for received in upstream.requests} == {"/"}
    for client in coming:
        client.send(b"0\r\n\r\n")
    assert [client.read_response().status for client in coming] == [200] * 10
    assert {framing(received) for received in upstream.requests if received.target == "/slow"} == {("70000", "")}


# --- another try -----------------------------------------------------------------------------------------------------


def test_a_target_that_is_down_costs_nothing(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(echo)
    for number in range(6):
        body = b"%d" % number * 70_000
        answer = wire.ask("POST", "/", chunks=[body], host="two.test")
        assert (answer.status, answer.body) == (200, body)
    assert {framing(received) for received in upstream.requests} == {("70000", "")}


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_stale_connection_is_replaced_where_the_body_may_be_sent_twice(
    wire: WireUnderTest, upstream: ScriptedUpstream, method: str
) -> None:
    def first(connection: UpstreamConnection) -> None:
        connection.read_request()
        connection.respond()
        connection.read_request()  # and it ends without an answer

    def second(connection: UpstreamConnection) -> None:
        received = connection.read_request()
        connection.respond(200, bytes(received.body))

    upstream.serve_connection(first, second)
    assert wire.ask("POST", "/", body=b"x").status == 200
    body = b"y" * 90_000  # more than is kept of others
    answer = wire.ask(method, "/again", chunks=[body])
    again = [framing(received) for received in upstream.requests if received.target == "/again"]
    if method == "PUT":
        assert (answer.status, answer.body, again) == (200, body, [("90000", "")] * 2)
    else:
        wire.expect_own(answer, 502, "UC")
        assert again == [("90000", "")]


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [2, pytest.param(8, marks=pytest.mark.long)])
def test_bodies_are_bounded_in_all_and_given_back(upstream: ScriptedUpstream, times: int) -> None:
    config = {
        "server": {"workers": 1, "timeouts": {"head": "10s", "body_idle": "60s"}},
        "routes": {"app": {"host": "wire.test", "to": upstream.url, "buffer_body": "64MiB"}},
        "defaults": {"timeouts": {"response": "20s"}},
    }
    piece = b"x" * (1 << 20)
    with Gateway(config) as gateway, opened(gateway) as door:
        (pid,) = gateway.worker_pids()
        before = rss_kib(pid)
        whole = door.request("POST", "/", chunks=[piece] * 40)
        assert door.exchange(whole, "POST").status == 200
        clients = []
        for _ in range(4):  # all that may be kept at once, so that nothing is left of the first one
            client = door.connect(timeout=30, remember=False)
            client.send(door.request("POST", "/much", CHUNKED))
            for _ in range(63):
                client.send(chunk(piece))
            clients.append(client)
        last = door.connect(timeout=30, remember=False)
        last.send(door.request("POST", "/too-much", CHUNKED))
        with suppress(OSError):
            for _ in range(40):
                last.send(chunk(piece))
        answer = last.read_response()
        door.expect_own(answer, 503, "UO")
        assert b"request bodies" in answer.body
        assert all(client.silent(0) for client in clients), "only the one too much is refused"
        full = rss_kib(pid)
        assert full - before < 300 * 1024
        assert door.ask().status == 200
        for client in clients:
            client.close()
        # The allocator keeps some for the next ones: 64 MiB at the end of its heap, and what lies below a piece of it
        # that is still in use, wherever that happens to be. A quarter was always given back.
        bound = (full - before) * 3 // 4
        wait_until(lambda: rss_kib(pid) - before < bound, 10, "the memory being free again")
        for _ in range(times):
            assert door.exchange(whole, "POST").status == 200
            assert framing(upstream.requests[-1]) == (str(40 << 20), "")
        assert rss_kib(pid) - before < bound + 40 * 1024


def test_a_drain_waits_for_a_body_and_then_cuts_it(upstream: ScriptedUpstream) -> None:
    config = {
        "server": {"workers": 1, "timeouts": {"body_idle": "30s"}, "drain": {"timeout": "2s"}},
        "routes": {"app": {"host": "wire.test", "to": upstream.url, "buffer_body": SIZE}},
    }
    with Gateway(config) as gateway, opened(gateway) as door:
        done, stuck = door.send("POST", "/done", CHUNKED), door.send("POST", "/stuck", CHUNKED)
        done.send(chunk(b"x"))
        stuck.send(chunk(b"x"))
        assert done.silent(0.1)
        gateway.term()
        wait_until(lambda: _refuses(door), 5, "the listener being closed")
        done.send(b"0\r\n\r\n")
        assert done.read_response().status == 200
        door.expect_own(stuck.read_response(), 503, "DR")
        assert gateway.wait() == 3  # the drain has cut something
    assert [received.target for received in upstream.requests] == ["/done"]


def _refuses(door: WireUnderTest) -> bool:
    try:
        door.connect(timeout=1).close()
    except OSError:
        return True
    return False


# --- real servers that know only lengths -----------------------------------------------------------------------------


def length_only(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Answer with the body, as PEP 3333 has it read: as much as CONTENT_LENGTH says."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the name is the library's
        pass

    def get_stderr(self) -> io.StringIO:  # type: ignore[override] # any text file will do
        return io.StringIO()


class _QuietWerkzeug(werkzeug.serving.WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 -- likewise
        pass


class _Plain(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- likewise
        pass


def _server(name: str) -> Any:
    if name == "wsgiref":
        return make_server("127.0.0.1", 0, length_only, handler_class=_Quiet)
    if name == "werkzeug":
        return werkzeug.serving.make_server("127.0.0.1", 0, length_only, threaded=True, request_handler=_QuietWerkzeug)
    return http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Plain)


@contextmanager
def serving(name: str) -> Iterator[str]:
    server = _server(name)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


@pytest.mark.parametrize("name", ["wsgiref", "werkzeug", "http.server"])
def test_a_server_that_knows_only_lengths_gets_the_whole_body(name: str) -> None:
    body = bytes(range(256)) * 2000
    with serving(name) as url:
        config = {
            "server": {"workers": 1},
            "routes": {
                "app": {"host": "wire.test", "to": url, "buffer_body": "1MiB"},
                "bare": {"host": "bare.test", "to": url},
            },
        }
        with Gateway(config) as gateway, opened(gateway) as door:
            for size in (0, 1, 5000, len(body)):
                pieces = [body[at : min(at + 3000, size)] for at in range(0, size, 3000)]
                answer = door.ask("POST", "/", chunks=pieces)
                assert (answer.status, answer.body) == (200, body[:size])
            client = door.send("POST", "/", EXPECTING)
            assert client.read_interim()[0] == 100
            client.send(chunked(b"expected"))
            assert client.read_response().body == b"expected"
            assert door.ask("POST", "/", chunks=[b"lost"], host="bare.test").body != b"lost"
