"""Which connections to a target carry another request, and that nobody is answered with what was made for another."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import Gateway, Received, ScriptedUpstream, UpstreamConnection, response, wait_until
from tests.support.door import WireUnderTest, opened
from tests.support.messages import chunked
from tests.support.upstream import echo
from tests.support.websocket import KEY

EVIL = response(200, {"X-Evil": "1"}, b"evil")


@pytest.fixture(scope="module")
def narrow_gateway(upstream_listener: ScriptedUpstream) -> Iterator[Gateway]:
    """A pool of one, so that whoever comes next gets the connection of whoever was before, if anybody does."""
    one = {"targets": [upstream_listener.url], "pool": {"max_connections": 1, "wait": "2s"}}
    upstreams = {
        "one": one,
        "wary": one | {"pool": {"max_connections": 1, "wait": "2s", "reuse_after_body": False}},
        "two": one | {"pool": {"max_connections": 2, "wait": "2s"}},
        "impatient": one | {"pool": {"max_connections": 1, "wait": "0s"}},
    }
    routes: dict[str, Any] = {
        "one": {"host": "wire.test", "upstream": "one"},
        "open": {"host": "open.test", "upstream": "one", "upgrades": ["websocket", "Foo"], "trailers": True},
        "shut": {"host": "shut.test", "upstream": "one", "upgrades": []},
        "wary": {"host": "wary.test", "upstream": "wary"},
        "two": {"host": "two.test", "upstream": "two"},
        "impatient": {"host": "impatient.test", "upstream": "impatient"},
    }
    with Gateway({"upstreams": upstreams, "routes": routes}) as gateway:
        yield gateway


@pytest.fixture
def narrow(narrow_gateway: Gateway, upstream: ScriptedUpstream) -> Iterator[WireUnderTest]:
    with opened(narrow_gateway) as door:
        yield door


def connections(upstream: ScriptedUpstream) -> list[int]:
    """The number of the connection that each request came on."""
    return [received.connection for received in upstream.requests]


# --- what ordinary clients do --------------------------------------------------------------------------------------


@pytest.mark.case("RT-90")
@pytest.mark.parametrize(
    "ordinary",
    [
        {"method": "GET"},
        {"method": "GET", "headers": {"Connection": "Upgrade", "Upgrade": "TLS/1.2"}},
        {"method": "GET", "headers": {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": ""}},
        {"method": "GET", "headers": {"Content-Length": "0"}},
        {"method": "POST", "body": b"x" * 100},
        {"method": "PUT", "body": b"x" * 100},
        {"method": "PATCH", "chunks": [b"x"]},
        {"method": "POST", "chunks": [b"x"], "headers": {"Expect": "100-continue"}},
        {"method": "POST", "body": b""},
        {"method": "DELETE"},
        {"method": "OPTIONS"},
        {"method": "PROPFIND"},
    ],
    ids=lambda ordinary: f"{ordinary['method']}{'+' + '+'.join(k for k in ordinary if k != 'method')}",
)
def test_an_ordinary_request_leaves_its_connection_to_the_next(
    narrow: WireUnderTest, upstream: ScriptedUpstream, ordinary: dict[str, Any]
) -> None:
    assert narrow.ask(**ordinary).status == 200
    assert narrow.ask().status == 200
    assert connections(upstream) == [1, 1]
    first = upstream.requests[0]
    assert not first.headers.all("upgrade") + first.headers.all("connection")


@pytest.mark.case("RT-91")
@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "PROPFIND", "REPORT", "SEARCH", "QUERY"])
@pytest.mark.parametrize("framing", [{"body": b"GET /evil HTTP/1.1\r\n\r\n"}, {"chunks": [b"x"]}, {"chunks": []}])
def test_a_body_that_a_server_may_leave_unread_ends_its_connection(
    narrow: WireUnderTest, upstream: ScriptedUpstream, method: str, framing: dict[str, Any]
) -> None:
    """Elasticsearch takes GET with a body, WebDAV PROPFIND and REPORT: they are answered as ever."""
    upstream.serve(echo)
    answer = narrow.ask(method, "/", **framing)
    assert (answer.status, answer.body) == (200, b"".join(framing.get("chunks", [framing.get("body")])))
    assert narrow.ask().status == 200
    assert connections(upstream) == [1, 2]
    assert upstream.requests[0].headers.tokens("connection") == ["close"], "or the server may execute the body"
    assert upstream.requests[1].headers.tokens("connection") == []


@pytest.mark.case("RT-91")
def test_a_head_with_a_body_ends_its_connection(narrow: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert narrow.ask("HEAD", "/", body=b"x").status == 200
    assert narrow.ask().status == 200
    assert connections(upstream) == [1, 2]


@pytest.mark.case("RT-91")
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_an_upstream_that_is_not_trusted_with_bodies(
    narrow: WireUnderTest, upstream: ScriptedUpstream, method: str
) -> None:
    for body in (b"x", None):
        assert narrow.ask(method, host="wary.test", body=body).status == 200
    assert narrow.ask(host="wary.test").status == 200
    assert connections(upstream) == [1, 2, 2], "without a body there is nothing to leave unread"


@pytest.mark.case("RT-92")
@pytest.mark.parametrize("more", [b"", b"b" * 50])
def test_an_answer_before_the_request_was_whole_ends_the_connection(
    narrow: WireUnderTest, upstream: ScriptedUpstream, more: bytes
) -> None:
    """Also where the rest of the request comes before the rest of the answer."""
    go = threading.Event()

    def early(connection: UpstreamConnection, received: Received) -> None:
        connection.send(b"HTTP/1.1 200 Fine\r\nContent-Length: 4\r\n\r\nha" + (b"" if more else b"lf"))
        connection.pause(go)
        connection.read_body(received)
        connection.send(b"lf" if more else b"")

    upstream.serve(lambda connection, received: early(connection, received) if more or received.method == "POST" else 0)
    client = narrow.connect()
    client.send(narrow.request("POST", "/", {"Content-Length": "100"}) + b"a" * 50)
    answer = client.start_response("POST")
    assert answer.read(2)[:2] == b"ha"
    client.send(more)
    go.set()
    if more:
        assert answer.finish().complete
    upstream.serve(response(200, (), b"own"))
    assert narrow.ask().body == b"own"
    assert connections(upstream) == [1, 2]


# --- upgrades --------------------------------------------------------------------------------------------------------


@pytest.mark.case("WS-90")
@pytest.mark.parametrize(
    ("host", "asked", "offered"),
    [
        ("wire.test", "foo", []),
        ("wire.test", "foo, TLS/1.2, h2c", []),
        ("open.test", "foo", ["foo"]),
        ("open.test", "FOO/2, bar", ["FOO/2"]),
        ("open.test", "h2c, foo", ["foo"]),
        ("shut.test", "foo", []),
    ],
)
def test_only_what_the_route_lists_is_offered(
    narrow: WireUnderTest, upstream: ScriptedUpstream, host: str, asked: str, offered: list[str]
) -> None:
    answer = narrow.ask(host=host, headers={"Connection": "keep-alive, Upgrade", "Upgrade": asked})
    assert answer.status == 200
    assert upstream.only.headers.all("upgrade") == offered
    assert upstream.only.headers.tokens("connection") == (["upgrade"] if offered else [])


@pytest.mark.case("WS-91")
@pytest.mark.parametrize("host", ["wire.test", "open.test"])
@pytest.mark.parametrize("framing", [{"body": b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"}, {"chunks": [b"x"]}])
def test_an_upgrade_never_goes_together_with_a_body(
    narrow: WireUnderTest, upstream: ScriptedUpstream, host: str, framing: dict[str, Any]
) -> None:
    upstream.serve(echo)
    answer = narrow.ask("POST", host=host, headers={"Connection": "Upgrade", "Upgrade": "foo"}, **framing)
    assert (answer.status, answer.body) == (200, b"".join(framing.get("chunks", [framing.get("body")])))
    assert not upstream.only.headers.all("upgrade") + upstream.only.headers.all("connection")


@pytest.mark.case("WS-91")
@pytest.mark.parametrize("framing", [{"body": b"x"}, {"chunks": [b"x"]}, {"chunks": []}])
def test_a_websocket_handshake_with_a_body_is_refused(
    narrow: WireUnderTest, upstream: ScriptedUpstream, framing: dict[str, Any]
) -> None:
    fields = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13"}
    client = narrow.send(headers=fields, **framing)
    narrow.expect_refused(client, 400)
    assert upstream.requests == []


@pytest.mark.case("WS-92")
@pytest.mark.parametrize("status", [200, 400, 426, 500])
def test_a_connection_on_which_an_upgrade_was_refused_is_not_used_again(
    narrow: WireUnderTest, upstream: ScriptedUpstream, status: int
) -> None:
    upstream.serve(response(status, (), b"no"))
    fields = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13"}
    assert narrow.ask(headers=fields).status == status
    assert narrow.ask().status == status
    assert connections(upstream) == [1, 2]


@pytest.mark.case("WS-93")
def test_a_switch_to_what_was_not_offered_is_a_502(narrow: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(101, {"Upgrade": "foo", "Connection": "Upgrade"}, None))
    answer = narrow.ask(headers={"Connection": "Upgrade", "Upgrade": "foo"})
    narrow.expect_own(answer, 502, "UP")


# --- trailers --------------------------------------------------------------------------------------------------------


@pytest.mark.case("CH-90")
@pytest.mark.parametrize(("host", "passed"), [("wire.test", False), ("open.test", True)])
@pytest.mark.parametrize("packets", [1, 2])
def test_request_trailers_pass_only_where_the_route_says_so(
    narrow: WireUnderTest, upstream: ScriptedUpstream, host: str, passed: bool, packets: int
) -> None:
    head = f"POST /c HTTP/1.1\r\nHost: {host}\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
    body = chunked(b"hello", trailers=[("X", "/admin/0 HTTP/1.1"), ("Host", "evil")])
    client = narrow.connect()
    if packets == 1:
        client.send(head.encode() + body)
    else:
        client.send(head.encode())
        client.dribble(body, 7)
    assert client.read_response().status == 200
    received = upstream.only
    assert bytes(received.body) == b"hello"
    assert received.trailers.lines == ([("X", "/admin/0 HTTP/1.1")] if passed else [])
    assert received.headers.all("trailer") == (["X"] if passed else [])
    assert received.headers.all("te") == ["trailers"], "about the answer's trailers"
    assert narrow.ask().status == 200
    assert connections(upstream) == [1, 1]


# --- what comes behind an answer -------------------------------------------------------------------------------------


def late(answer: bytes, seconds: float) -> Callable[[UpstreamConnection, Received], None]:
    """An upstream whose first answer is followed, a moment later, by bytes that nobody asked for."""

    def serve(connection: UpstreamConnection, received: Received) -> None:
        if received.target == "/own":
            connection.send(response(200, (), b"own"))
            return
        connection.send(answer)
        time.sleep(seconds)  # what comes later than the head is the case
        connection.send(EVIL)

    return serve


@pytest.mark.case("UF-90")
@pytest.mark.parametrize("host", ["wire.test", "two.test", "impatient.test"])
@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 Fine\r\nContent-Length: 4\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 404 No\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 None\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Same\r\nContent-Length: 4\r\n\r\n"),
        ("GET", b"HTTP/1.1 302 There\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"),
        ("POST", b"HTTP/1.1 200 Fine\r\nContent-Length: 0\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("POST", b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n0;a=b\r\nX-Sum: 1\r\n\r\n"),
    ],
)
def test_what_comes_late_behind_an_answer_without_a_body_is_nobodys_answer(
    narrow: WireUnderTest, upstream: ScriptedUpstream, host: str, method: str, answer: bytes
) -> None:
    upstream.serve(late(answer, 0.002))
    for _ in range(5):
        client = narrow.connect()
        client.send(narrow.request(method, "/", host=host))
        assert client.read_response(method).body == b""
        victim = narrow.ask(target="/own", host=host)
        assert (victim.status, victim.body, "X-Evil" in victim.headers) == (200, b"own", False)


@pytest.mark.case("UF-91")
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_answers_without_a_body_do_not_use_up_connections(
    narrow: WireUnderTest, upstream: ScriptedUpstream, method: str
) -> None:
    upstream.serve(lambda connection, _: connection.send(b"HTTP/1.1 200 Fine\r\nContent-Length: 0\r\n\r\n"))
    client = narrow.connect()
    for _ in range(30):
        client.send(narrow.request(method, host="impatient.test"))
        assert client.read_response(method).status == 200, "there is room: a resting connection makes it"
    upstream.forget()
    for _ in range(3):
        time.sleep(0.2)  # longer than a rest
        client.send(narrow.request(method, host="impatient.test"))
        assert client.read_response(method).status == 200
    assert len(set(connections(upstream))) == 1


# --- authentication that belongs to a connection ---------------------------------------------------------------------


class Ntlm:
    """An upstream that knows who asks by the connection, as IIS does: two steps, then no more credentials."""

    def __init__(self) -> None:
        self.users: dict[int, str] = {}

    def __call__(self, connection: UpstreamConnection, received: Received) -> None:
        connection.read_body(received)
        scheme, _, token = received.headers.get("authorization").partition(" ")
        user = self.users.get(connection.number)
        if scheme == "NTLM" and token == "hello":
            connection.respond(401, b"", WWW_Authenticate="NTLM challenge")
        elif scheme == "NTLM":
            self.users[connection.number] = token
            connection.respond(200, token.encode())
        elif user is None:
            connection.respond(401, b"who?", WWW_Authenticate="NTLM")
        elif received.target == "/die":
            connection.close()
        else:
            connection.respond(200, user.encode())


def authenticated(narrow: WireUnderTest, user: str, host: str = "two.test") -> Any:
    """A client that has gone through the handshake."""
    client = narrow.connect()
    for token, status in (("", 401), ("hello", 401), (user, 200)):
        fields = {"Authorization": f"NTLM {token}"} if token else {}
        client.send(narrow.request("GET", "/", fields, host=host))
        answer = client.read_response()
        assert answer.status == status, answer
    assert answer.body == user.encode()
    return client


@pytest.mark.case("RT-93")
def test_an_authenticated_connection_is_its_clients_alone(narrow: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(Ntlm())
    alice = authenticated(narrow, "alice")
    stranger = narrow.connect()
    for _ in range(3):
        stranger.send(narrow.request(host="two.test"))
        assert stranger.read_response().status == 401
        for method, body in (("GET", None), ("POST", b"x"), ("PROPFIND", b"<x/>")):
            alice.send(narrow.request(method, "/", body=body, host="two.test"))
            answer = alice.read_response()
            assert (answer.status, answer.body) == (200, b"alice")
    assert len(set(connections(upstream))) == 2
    alice.close()
    wait_until(lambda: upstream.connections[0].left, 2, "the connection ending with its client")
    stranger.close()
    wait_until(lambda: upstream.connections[1].left, 2, "a challenge alone binding a connection")


@pytest.mark.case("RT-94")
def test_a_private_connection_that_died_is_not_replaced_in_silence(
    narrow: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    upstream.serve(Ntlm())
    alice = authenticated(narrow, "alice")
    alice.send(narrow.request(target="/die", host="two.test"))
    narrow.expect_own(alice.read_response(), 502, "UC")
    assert [received.target for received in upstream.requests].count("/die") == 1
    alice.send(narrow.request(host="two.test"))
    assert alice.read_response().status == 401, "a new connection, and the client begins anew"


@pytest.mark.case("RT-95")
def test_a_challenge_alone_keeps_nobody_waiting(narrow: WireUnderTest, upstream: ScriptedUpstream) -> None:
    """Or whoever asks without credentials, on a hundred connections, would have the whole pool."""
    upstream.serve(Ntlm())
    clients = [narrow.connect() for _ in range(3)]
    for client in clients:
        client.send(narrow.request(host="impatient.test"))
        assert client.read_response().status == 401
    assert connections(upstream) == [1, 2, 3]


@pytest.mark.case("RT-95")
def test_credentials_that_the_target_never_asked_for_keep_no_connection(
    narrow: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    client = narrow.connect()
    for _ in range(2):
        client.send(narrow.request("GET", "/", {"Authorization": "Negotiate YII"}))
        assert client.read_response().status == 200
    assert narrow.ask().status == 200
    assert connections(upstream) == [1, 2, 3], "nobody's, and so of no use"


@pytest.mark.case("RT-95")
def test_who_has_authenticated_does_not_lose_the_connection_at_once(
    narrow: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    upstream.serve(Ntlm())
    alice = authenticated(narrow, "alice", "impatient.test")
    narrow.expect_own(narrow.ask(host="impatient.test"), 503, "UO")
    alice.send(narrow.request("POST", "/", body=b"x", host="impatient.test"))
    assert alice.read_response().body == b"alice"
