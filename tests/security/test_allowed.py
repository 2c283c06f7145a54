"""What real clients need and RFCs allow must still pass, before every server that can do it."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.security.servers import RealServer, Servers
from tests.security.stage import Lane, Watch
from tests.security.test_attacks import judge
from tests.support import Gateway, RawClient
from tests.support.client import Response
from tests.support.messages import chunked
from tests.support.websocket import TEXT, Frame, accept_for, read_frame

_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_MASK = b"mask"
_CONTINUE_SECONDS = 0.3  # a client that expects 100 sends its body without it after a moment, as curl does


class Visit:
    """One client of one lane."""

    def __init__(self, client: RawClient, lane: Lane) -> None:
        self.client, self.host, self.kind = client, lane.host, lane.server.kind

    def send(self, start: str, *fields: str, body: bytes = b"") -> None:
        """Send a request."""
        self.client.send("\r\n".join((f"{start} HTTP/1.1", f"Host: {self.host}", *fields, "", "")).encode() + body)

    def sized(self, start: str, body: bytes, *fields: str) -> None:
        """Send a request with a body and its length."""
        self.send(start, *fields, f"Content-Length: {len(body)}", body=body)

    def served(self, method: str, target: str, length: int = 0) -> Response:
        """Read the answer, which must say that this came."""
        answer = self.client.read_response(method)
        assert answer.status == 200, answer
        assert answer.complete, answer
        seen: dict[str, Any] = json.loads(answer.body)
        assert (seen["method"], seen["target"]) == (method, target)
        if length and self.kind.reads(method):
            assert seen["length"] == length
        return answer


def head(visit: Visit) -> None:
    for _ in range(2):
        visit.send("HEAD /m/head")
        answer = visit.client.read_response("HEAD")
        assert (answer.status, answer.body) == (200, b"")
    visit.send("GET /m/behind")
    visit.served("GET", "/m/behind")


def no_content(visit: Visit) -> None:
    visit.send("GET /204/x")
    assert visit.client.read_response().status == 204
    visit.send("GET /304/x", 'If-None-Match: "a"')
    assert visit.client.read_response().status == 304
    visit.send("GET /m/behind")
    visit.served("GET", "/m/behind")


def upload(visit: Visit) -> None:
    for size in (1, 1000, 200_000):
        visit.sized(f"POST /m/{size}", b"a" * size, "Content-Type: text/plain")
        visit.served("POST", f"/m/{size}", size)


def chunked_upload(visit: Visit) -> None:
    if not visit.kind.chunked:
        pytest.skip(f"{visit.kind.name} does not read chunks")
    body = chunked(b"a" * 1000, b"b" * 70_000, b"c")
    visit.send("PUT /m/chunked", "Transfer-Encoding: chunked", body=body)
    visit.served("PUT", "/m/chunked", 71_001)


def dropped_trailers(visit: Visit) -> None:
    if not visit.kind.chunked:
        pytest.skip(f"{visit.kind.name} does not read chunks")
    body = chunked(b"hello", trailers={"X-Checksum": "5d41402a"})
    visit.send("POST /m/trailers", "Transfer-Encoding: chunked", "Trailer: X-Checksum", body=body)
    visit.served("POST", "/m/trailers", 5)


def expect_continue(visit: Visit) -> None:
    visit.send("POST /m/expect", "Expect: 100-continue", "Content-Length: 5")
    if not visit.client.silent(_CONTINUE_SECONDS):
        assert visit.client.buffer.startswith(b"HTTP/1.1 100"), visit.client.buffer
    visit.client.send(b"hello")
    visit.served("POST", "/m/expect", 5)


def delete_with_a_body(visit: Visit) -> None:
    visit.sized("DELETE /m/delete", b'{"why": "old"}', "Content-Type: application/json")
    visit.served("DELETE", "/m/delete", 14)


def search_with_a_body(visit: Visit) -> None:
    """As the clients of Elasticsearch do."""
    query = b'{"query": {"match_all": {}}}'
    for _ in range(2):
        visit.sized("GET /m/_search", query, "Content-Type: application/json")
        visit.served("GET", "/m/_search", len(query))


def propfind(visit: Visit) -> None:
    """As WebDAV does."""
    body = b'<?xml version="1.0"?><propfind xmlns="DAV:"><allprop/></propfind>'
    visit.sized("PROPFIND /m/dav", body, "Depth: 1", "Content-Type: application/xml")
    visit.served("PROPFIND", "/m/dav", len(body))


def options(visit: Visit) -> None:
    visit.send("OPTIONS /m/cors", "Origin: http://a.test", "Access-Control-Request-Method: PUT")
    visit.served("OPTIONS", "/m/cors")


def apache_client(visit: Visit) -> None:
    """Apache HttpClient 5.4 offers TLS with every request, those with a body too."""
    fields = ("Upgrade: TLS/1.2", "Connection: Upgrade")
    for _ in range(2):
        visit.send("GET /m/apache", *fields)
        visit.served("GET", "/m/apache")
        visit.sized("POST /m/apache", b"hello", *fields)
        visit.served("POST", "/m/apache", 5)


def java_client(visit: Visit) -> None:
    """java.net.http offers h2c with its first request, whatever it is."""
    fields = (
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    )
    visit.send("GET /m/java", *fields)
    visit.served("GET", "/m/java")
    visit.sized("POST /m/java", b"hello", *fields)
    visit.served("POST", "/m/java", 5)


def pipelining(visit: Visit) -> None:
    for number in range(3):
        visit.send(f"GET /m/{number}")
    visit.sized("POST /m/posted", b"hello")
    visit.send("GET /m/last")
    for number in range(3):
        visit.served("GET", f"/m/{number}")
    visit.served("POST", "/m/posted", 5)
    visit.served("GET", "/m/last")


def websocket(visit: Visit) -> None:
    if not visit.kind.websocket:
        pytest.skip(f"the application on {visit.kind.name} has no WebSocket")
    visit.send(
        "GET /socket",
        "Upgrade: websocket",
        "Connection: keep-alive, Upgrade",
        f"Sec-WebSocket-Key: {_KEY}",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Extensions: permessage-deflate",
        f"Origin: http://{visit.host}",
    )
    answer = visit.client.read_response()
    assert answer.status == 101, answer
    assert answer.headers["sec-websocket-accept"] == accept_for(_KEY)
    for word in (b"one", b"two"):
        visit.client.send(Frame(TEXT, word).encode(_MASK))
    # Deflated or not is between the two of them.
    assert [read_frame(visit.client).opcode for _ in range(2)] == [TEXT, TEXT]


CASES: dict[str, Callable[[Visit], None]] = {
    "HEAD": head,
    "204 and 304": no_content,
    "uploads": upload,
    "a chunked upload": chunked_upload,
    "trailers, which are dropped": dropped_trailers,
    "Expect: 100-continue": expect_continue,
    "DELETE with a body": delete_with_a_body,
    "GET with a body": search_with_a_body,
    "PROPFIND": propfind,
    "OPTIONS": options,
    "Apache HttpClient": apache_client,
    "java.net.http": java_client,
    "pipelining": pipelining,
    "a WebSocket": websocket,
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_real_clients_do_passes(gateway: Gateway, server: RealServer, case: Callable[[Visit], None]) -> None:
    lane, watch = Lane(gateway, server, "two"), Watch(server)
    with closing(RawClient(gateway.port, timeout=15)) as client:
        case(Visit(client, lane))
    lane.ask_afterwards()
    watch.settle()
    watch.check()
    judge(lane.harms + watch.harms)


@pytest.fixture(scope="module")
def trailing(servers: Servers) -> Iterator[Gateway]:
    """A gateway that passes trailers on to Node."""
    route = {"host": "*", "to": servers.by_name["node"].url, "trailers": True}
    with Gateway({"routes": {"node": route}}) as running:
        yield running


@pytest.mark.parametrize("server", ["node"], indirect=True)
def test_trailers_pass_where_the_route_says_so(trailing: Gateway, server: RealServer) -> None:
    with closing(RawClient(trailing.port, timeout=15)) as client:
        visit = Visit(client, Lane(trailing, server, "one"))
        body = chunked(b"hello", trailers={"X-Checksum": "5d41402a"})
        visit.send("POST /trailers", "Transfer-Encoding: chunked", "Trailer: X-Checksum", "TE: trailers", body=body)
        assert json.loads(client.read_response().body)["trailers"] == {"x-checksum": "5d41402a"}
