"""Hop-by-hop fields and those a Connection line nominates, both ways; loops."""

import pytest

from tests.support import ScriptedUpstream
from tests.support.door import WireUnderTest
from tests.support.messages import response

# What the gateway adds or rewrites by contract; nothing else may differ from what the client sent.
ADDED = {
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-real-ip",
    "forwarded",
    "x-request-id",
    "via",
    "connection",
}


@pytest.mark.case("HH-01")
def test_a_nominated_field_stays_on_its_hop(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    wire.ask(headers={"Connection": "close, X-Hop", "X-Hop": "secret", "X-Kept": "yes"})
    received = upstream.only
    assert "X-Hop" not in received.headers
    assert "x-hop" not in received.headers.tokens("connection")
    assert received.headers["X-Kept"] == "yes"


@pytest.mark.case("HH-02")
def test_connection_lines_are_joined_and_compared_without_case(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    wire.ask(headers=[("Connection", ""), ("X-Hop", "secret"), ("Connection", "x-hOP")])
    assert "X-Hop" not in upstream.only.headers


@pytest.mark.case("HH-03")
@pytest.mark.parametrize("name", ["Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "TE", "Upgrade"])
def test_hop_by_hop_fields_stay_without_being_nominated(
    wire: WireUnderTest, upstream: ScriptedUpstream, name: str
) -> None:
    value = {"TE": "gzip", "Keep-Alive": "timeout=5", "Upgrade": "nobody/1"}.get(name, "x-thing")
    assert wire.ask(headers={name: value}).status == 200
    assert value not in upstream.only.headers.all(name)


@pytest.mark.case("HH-04")
def test_the_upstreams_hop_is_not_the_clients(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(
        response(200, {"Connection": "X-Hop, close", "X-Hop": "secret", "X-Extension": "keep", "Keep-Alive": "max=1"})
    )
    client = wire.connect()
    for _ in range(2):
        client.send(wire.request())
        answer = client.read_response()
        assert answer.status == 200
        assert "X-Hop" not in answer.headers
        assert "Keep-Alive" not in answer.headers
        assert not {"x-hop", "close"} & set(answer.headers.tokens("connection"))
        assert answer.headers["X-Extension"] == "keep"
    assert len(upstream.connections) == 2, "the upstream said close"


@pytest.mark.case("HH-05")
def test_two_connection_lines_of_the_upstream_are_joined(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(200, [("Connection", ""), ("X-Hop", "1"), ("Connection", "X-HOP")]))
    assert "X-Hop" not in wire.ask().headers


@pytest.mark.case("HH-06")
def test_nominating_what_the_proxy_sets_does_not_delete_it(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    answer = wire.ask(
        headers={
            "Connection": "X-Forwarded-For, X-Real-IP, Host, Authorization, Cookie, X-Request-ID",
            "Authorization": "Basic eDp5",
            "Cookie": "a=b",
        }
    )
    if answer.status == 400:
        assert upstream.requests == []
        return
    received = upstream.only
    assert received.headers["Host"] == "wire.test"
    assert received.headers["X-Forwarded-For"] == "127.0.0.1"
    assert received.headers["Authorization"] == "Basic eDp5"
    assert received.headers["Cookie"] == "a=b"
    if wire.gateway:
        assert received.headers["X-Request-ID"]
        assert received.headers["Via"]


@pytest.mark.case("HH-07")
@pytest.mark.parametrize("framing", ["Content-Length", "Transfer-Encoding"])
def test_nominating_the_framing_does_not_unframe_the_body(
    wire: WireUnderTest, upstream: ScriptedUpstream, framing: str
) -> None:
    content = {"body": b"hello"} if framing == "Content-Length" else {"chunks": [b"hello"]}
    answer = wire.ask("POST", "/a", {"Connection": framing}, **content)
    if answer.status == 400:
        assert upstream.requests == []
        return
    assert (upstream.only.complete, bytes(upstream.only.body)) == (True, b"hello")


@pytest.mark.case("HH-08", should=True)
@pytest.mark.parametrize("value", ["trailers", "gzip", "gzip;q=0.5, deflate"])
def test_te_is_the_hops_own(wire: WireUnderTest, upstream: ScriptedUpstream, value: str) -> None:
    wire.ask(headers={"TE": value, "Connection": "TE"})
    received = upstream.only
    assert set(received.headers.tokens("te")) <= {"trailers"}
    if "TE" in received.headers:
        assert "te" in received.headers.tokens("connection")


@pytest.mark.case("HH-11")
def test_nothing_is_invented_and_order_and_case_stay(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    sent = [("X-Zulu", "1"), ("x-alpha", "2"), ("X-UPPER", "3"), ("X-Zulu", "4"), ("Accept", "*/*")]
    wire.ask(headers=sent)
    came = [(name, value) for name, value in upstream.only.headers if name.lower() not in ADDED]
    if wire.gateway:
        assert came == [("Host", "wire.test"), *sent]
    else:
        assert {name.lower() for name, _ in came} == {"host", *(name.lower() for name, _ in sent)}


@pytest.mark.case("HH-11")
def test_nothing_is_invented_for_a_bare_request(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    wire.ask()
    assert {name.lower() for name in upstream.only.headers.names} <= ADDED | {"host"}


@pytest.mark.case("HH-12")
def test_the_upstreams_proxy_fields_stay_behind(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(200, {"Proxy-Connection": "keep-alive", "Keep-Alive": "timeout=4", "X-Kept": "1"}))
    answer = wire.ask()
    assert "Proxy-Connection" not in answer.headers
    assert "Keep-Alive" not in answer.headers
    assert answer.headers["X-Kept"] == "1"


@pytest.mark.case("HH-13", should=True)
def test_a_loop_is_cut_at_its_first_turn(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    gateway.ask()
    via = upstream.only.headers["Via"]
    answer = gateway.ask(headers={"Via": via})
    gateway.expect_own(answer, 508, "LO")
    assert len(upstream.requests) == 1
    gateway.expect_flag("LO", status=508)


@pytest.mark.case("HH-13", should=True)
def test_another_proxys_via_is_no_loop(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert gateway.ask(headers={"Via": "1.1 devhost, 1.0 fred (devhost)"}).status == 200
    members = ", ".join(upstream.only.headers.all("via"))
    assert members.startswith("1.1 devhost, 1.0 fred (devhost), 1.1 devhost"), "and the list is appended to"


@pytest.mark.case("HH-80")
def test_via_on_the_way_back(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert gateway.ask().headers["Via"] == "1.1 devhost"
    upstream.serve(response(200, {"Via": "1.1 inner"}))
    assert ", ".join(gateway.ask().headers.all("via")) == "1.1 inner, 1.1 devhost"
