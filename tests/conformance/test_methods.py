"""Methods: passed as they are, framed as they are, and only CONNECT and TRACE refused (see the corpus)."""

import pytest

from tests.support import Received, ScriptedUpstream, UpstreamConnection, response
from tests.support.door import WireUnderTest
from tests.support.upstream import echo


@pytest.mark.parametrize(("length", "status"), [(32, 200), (33, 400), (3000, 400)])
def test_a_method_has_at_most_32_bytes(
    wire: WireUnderTest, upstream: ScriptedUpstream, length: int, status: int
) -> None:
    upstream.serve(echo)
    assert wire.send("M" * length).read_response().status == status
    assert len(upstream.requests) == (status == 200)


@pytest.mark.case("ME-01")
@pytest.mark.parametrize("sends", [b"", b"hello world"], ids=["no body", "wrongly a body"])
def test_head_has_the_length_and_no_body(wire: WireUnderTest, upstream: ScriptedUpstream, sends: bytes) -> None:
    upstream.serve(b"HTTP/1.1 200 Fine\r\nContent-Length: 11\r\nX-Here: 1\r\n\r\n" + sends)
    client = wire.send("HEAD")
    answer = client.read_response("HEAD")
    assert (answer.status, answer.headers["Content-Length"], answer.headers["X-Here"]) == (200, "11", "1")
    assert client.silent(0.1), f"bytes behind the answer to HEAD: {client}"
    upstream.serve(response(200, (), b"next"))
    client.send(wire.request())
    assert client.read_response().body == b"next", "the connection is reusable"


@pytest.mark.case("ME-02")
def test_an_answer_to_head_keeps_the_upstream_connection_in_step(
    wire: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    def script(connection: UpstreamConnection, received: Received) -> None:
        whole = response(200, (), b"11 bytes...")
        connection.send(whole[:-11] if received.method == "HEAD" else whole)

    upstream.serve(script)
    client = wire.connect()
    for method, body in [("HEAD", b""), ("GET", b"11 bytes..."), ("HEAD", b""), ("GET", b"11 bytes...")]:
        client.send(wire.request(method))
        answer = client.read_response(method)
        assert (answer.status, answer.body) == (200, body)
    assert wire.gateway or len(upstream.connections) == 1, "ours lets a connection rest behind an answer to HEAD"


@pytest.mark.case("ME-03")
def test_options_asterisk(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    answer = wire.ask("OPTIONS", "*")
    assert answer.status in {200, 204}, answer
    assert [received.target for received in upstream.requests] in ([], ["*"])


@pytest.mark.case("ME-06")
@pytest.mark.parametrize("method", ["FOO", "PURGE", "QUERY", "M-SEARCH", "a!b", "get", "Post", "PROPFIND", "X" * 32])
def test_an_unknown_method_is_passed_as_it_is(wire: WireUnderTest, upstream: ScriptedUpstream, method: str) -> None:
    answer = wire.ask(method)
    assert answer.status in ({200} if wire.gateway else {200, 400, 405, 501})
    if answer.status == 200:
        assert upstream.only.method == method


@pytest.mark.case("ME-06")
def test_an_unknown_method_may_have_a_body_and_pipelined_company(
    wire: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    client = wire.connect()
    client.send(wire.request("FOO", "/1", body=b"one") + wire.request("BAR", "/2", chunks=[b"two"]) + wire.request())
    assert [client.read_response().status for _ in range(3)] == [200, 200, 200]
    assert [bytes(received.body) for received in upstream.requests] == [b"one", b"two", b""]


@pytest.mark.case("ME-08")
@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
def test_no_framing_is_invented_where_there_is_no_body(
    wire: WireUnderTest, upstream: ScriptedUpstream, method: str
) -> None:
    assert wire.ask(method).status == 200
    assert "Content-Length" not in upstream.only.headers
    assert "Transfer-Encoding" not in upstream.only.headers


@pytest.mark.case("ME-09")
def test_a_post_of_nothing_says_so(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert wire.ask("POST", body=b"").status == 200
    assert upstream.only.headers["Content-Length"] == "0"


@pytest.mark.case("ME-10")
@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_any_method_may_have_a_body(wire: WireUnderTest, upstream: ScriptedUpstream, method: str, framing: str) -> None:
    upstream.serve(echo)
    content = {"body": b"hello"} if framing == "length" else {"chunks": [b"hel", b"lo"]}
    answer = wire.ask(method, **content)
    assert (answer.status, answer.body, upstream.only.method) == (200, b"hello", method)


@pytest.mark.case("ME-11")
def test_a_method_override_is_only_a_field(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert wire.ask("POST", headers={"X-HTTP-Method-Override": "DELETE"}, body=b"x").status == 200
    assert (upstream.only.method, upstream.only.headers["X-HTTP-Method-Override"]) == ("POST", "DELETE")


@pytest.mark.case("ME-13")
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_post_that_offers_h2c_keeps_its_body(wire: WireUnderTest, upstream: ScriptedUpstream, framing: str) -> None:
    upstream.serve(echo)
    content = {"body": b"hello"} if framing == "length" else {"chunks": [b"hel", b"lo"]}
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    client = wire.send("POST", "/a", offer, **content)
    assert client.read_response().body == b"hello"
    client.send(wire.request(target="/next"))
    assert client.read_response().status == 200


@pytest.mark.case("ME-80")
@pytest.mark.parametrize("options", ["close, keep-alive", "keep-alive, close"])
def test_close_is_looked_at_before_keep_alive(gateway: WireUnderTest, upstream: ScriptedUpstream, options: str) -> None:
    client = gateway.connect()
    client.send(f"GET / HTTP/1.0\r\nHost: wire.test\r\nConnection: {options}\r\n\r\n".encode())
    assert "close" in client.read_response().headers.tokens("connection")
    client.expect_end()


@pytest.mark.parametrize("target", ["/", "*"])
def test_an_options_that_nobody_is_to_pass_on_is_answered_here(
    gateway: WireUnderTest, upstream: ScriptedUpstream, target: str
) -> None:
    client = gateway.connect()
    for _ in range(2):
        client.send(gateway.request("OPTIONS", target, {"Max-Forwards": "0"}))
        answer = client.read_response("OPTIONS")
        assert (answer.status, answer.body) == (200, b"")
        assert "GET" in answer.headers["Allow"]
    assert upstream.requests == []


@pytest.mark.parametrize(("given", "passed"), [("1", "0"), ("10", "9"), ("007", "6")])
@pytest.mark.parametrize("name", ["Max-Forwards", "max-forwards"])
def test_others_are_passed_on_with_one_less(
    gateway: WireUnderTest, upstream: ScriptedUpstream, given: str, passed: str, name: str
) -> None:
    client = gateway.connect()
    for _ in range(2):  # the second time, what was found out the first time is remembered
        client.send(gateway.request("OPTIONS", "/", {name: given, "X-Other": "Max-Forwards: 5"}))
        assert client.read_response("OPTIONS").status == 200
    assert [received.headers.all("max-forwards") for received in upstream.requests] == [[passed]] * 2
    assert {received.headers["x-other"] for received in upstream.requests} == {"Max-Forwards: 5"}


@pytest.mark.parametrize("given", ["", "-1", "1, 2", "x", "9" * 20])
def test_what_cannot_be_counted_is_refused(gateway: WireUnderTest, upstream: ScriptedUpstream, given: str) -> None:
    gateway.expect_own(gateway.ask("OPTIONS", "/", {"Max-Forwards": given}), 400, "BR")
    assert upstream.requests == []


def test_it_means_nothing_with_other_methods(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert gateway.ask("GET", "/", {"Max-Forwards": "0"}).status == 200
    assert upstream.only.headers["max-forwards"] == "0"
