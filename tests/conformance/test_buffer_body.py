"""Bodies that come in chunks and are sent with a length, for servers that know nothing else."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import pytest

from tests.support import Gateway, RawClient, ScriptedUpstream
from tests.support.door import WireUnderTest, opened
from tests.support.upstream import echo

_MOST = 100 * 1024
_CHUNKED = {"Transfer-Encoding": "chunked"}


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the name that is overridden
        pass


def _count(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer with the body, as every WSGI application reads it."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture(scope="module")
def wsgi_server() -> Iterator[str]:
    with WSGIServer(("127.0.0.1", 0), _Quiet) as server:
        server.set_app(_count)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(5)


@pytest.fixture(scope="module")
def buffering_gateway(upstream_listener: ScriptedUpstream, wsgi_server: str) -> Iterator[Gateway]:
    to = upstream_listener.url
    routes = {
        "app": {"host": "wire.test", "to": to},
        "trailers": {"host": "trailers.test", "to": to, "trailers": True},
        "off": {"host": "off.test", "to": to, "buffer_body": None},
        "wsgi": {"host": "wsgi.test", "to": wsgi_server},
    }
    with Gateway({"defaults": {"buffer_body": _MOST}, "routes": routes}) as gateway:
        yield gateway


@pytest.fixture
def buffering(buffering_gateway: Gateway, upstream: ScriptedUpstream) -> Iterator[WireUnderTest]:
    upstream.serve(echo)
    with opened(buffering_gateway) as door:
        yield door


def _chunks(body: bytes, size: int = 9000, trailers: bytes = b"") -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailers + b"\r\n"


def _framing(upstream: ScriptedUpstream) -> list[tuple[str, str]]:
    names = ("content-length", "transfer-encoding", "expect", "trailer")
    return [(name, value) for name, value in upstream.only.headers.lines if name.lower() in names]


@pytest.mark.parametrize("size", [0, 5, 70_000, _MOST])
def test_a_body_that_fits_is_sent_with_its_length(
    buffering: WireUnderTest, upstream: ScriptedUpstream, size: int
) -> None:
    body = b"x" * size
    client = buffering.send("POST", "/", _CHUNKED)
    client.send(_chunks(body))
    assert client.read_response().body == body
    assert _framing(upstream) == [("Content-Length", str(size))]


@pytest.mark.parametrize("size", [_MOST + 1, 5 * _MOST])
def test_a_larger_one_goes_on_in_chunks(buffering: WireUnderTest, upstream: ScriptedUpstream, size: int) -> None:
    body = b"x" * size
    client = buffering.send("POST", "/", _CHUNKED)
    client.send(_chunks(body))
    assert client.read_response().body == body
    assert _framing(upstream) == [("Transfer-Encoding", "chunked")]


def test_nothing_is_sent_before_the_body_is_whole(buffering: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = buffering.send("PUT", "/", _CHUNKED)
    client.send(b"3\r\nabc\r\n")
    assert client.silent(0.5)
    assert not upstream.requests
    client.send(b"3\r\ndef\r\n0\r\n\r\n")
    assert client.read_response().body == b"abcdef"
    assert _framing(upstream) == [("Content-Length", "6")]


def test_one_that_stops_is_refused_and_reaches_nobody(buffering: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = buffering.send("POST", "/", _CHUNKED)
    client.send(b"3\r\nabc\r\n")
    buffering.expect_own(client.read_response(), 408)
    assert not upstream.requests


@pytest.mark.parametrize("size", [10, 3 * _MOST])
def test_a_client_that_waits_is_told_to_go_on(buffering: WireUnderTest, upstream: ScriptedUpstream, size: int) -> None:
    body = b"x" * size
    client = buffering.send("POST", "/", {**_CHUNKED, "Expect": "100-continue"})
    assert client.read_interim()[0] == 100
    client.send(_chunks(body))
    answer = client.read_response()
    assert (answer.body, answer.informational) == (body, [])
    assert _framing(upstream) == [("Content-Length", "10") if size == 10 else ("Transfer-Encoding", "chunked")]


def test_trailers_that_are_passed_on_need_chunks(buffering: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = buffering.connect()
    client.send(buffering.request("POST", "/", _CHUNKED, host="trailers.test"))
    client.send(_chunks(b"abc", trailers=b"X-Sum: 1\r\n"))
    assert client.read_response().body == b"abc"
    assert upstream.only.trailers["X-Sum"] == "1"
    assert _framing(upstream) == [("Transfer-Encoding", "chunked")]


def test_a_route_can_do_without(buffering: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = buffering.connect()
    client.send(buffering.request("POST", "/", _CHUNKED, host="off.test") + _chunks(b"abc"))
    assert client.read_response().body == b"abc"
    assert _framing(upstream) == [("Transfer-Encoding", "chunked")]


def test_requests_behind_one_another_keep_their_bodies(buffering: WireUnderTest) -> None:
    client: RawClient = buffering.connect()
    for body in (b"one", b"two"):
        client.send(buffering.request("POST", "/", _CHUNKED) + _chunks(body))
    client.send(buffering.request("POST", "/", body=b"three"))
    assert [client.read_response().body for _ in range(3)] == [b"one", b"two", b"three"]


def test_a_wsgi_server_that_knows_only_lengths_reads_all_of_it(buffering: WireUnderTest) -> None:
    client = buffering.connect()
    client.send(buffering.request("POST", "/", _CHUNKED, host="wsgi.test") + _chunks(b"x" * 50_000))
    assert client.read_response().body == b"x" * 50_000
