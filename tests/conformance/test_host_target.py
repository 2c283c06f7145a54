"""Host and request-target forms, as far as routes decide them (what is refused is in the corpus)."""

import http.client
from collections.abc import Iterator

import pytest

from tests.support import Gateway, ScriptedUpstream, free_port
from tests.support.door import WireUnderTest, opened


@pytest.fixture(scope="module")
def routed_gateway(upstream_listener: ScriptedUpstream) -> Iterator[Gateway]:
    """A gateway with routes by host, and none for any other."""
    said = {
        "a": {"host": "a.test", "respond": {"status": 200, "body": "a.test"}},
        "idn": {"host": "bücher.test", "respond": {"status": 200, "body": "idn"}},
        "six": {"host": "[::1]", "respond": {"status": 200, "body": "six"}},
        "wild": {"host": "*.wild.test", "respond": {"status": 200, "body": "wild"}},
        "deep": {"host": "**.deep.test", "respond": {"status": 200, "body": "deep"}},
    }
    said["canary"] = {"host": "canary.test", "headers": {"X-Canary": "1"}, "respond": {"body": "canary"}}
    said["inner"] = {"host": "inner.test", "headers": {"X-Forwarded-User": "admin"}, "respond": {"body": "inner"}}
    proxied = {
        "keep": {"host": "keep.test", "upstream": "keeping"},
        "drop": {"host": "drop.test", "upstream": "dropping"},
        "default": {"host": "default.test", "to": upstream_listener.url},
        "stable": {"host": ["canary.test", "inner.test"], "to": upstream_listener.url},
    }
    upstreams = {
        "keeping": {"targets": [upstream_listener.url], "pass_host": True},
        "dropping": {"targets": [upstream_listener.url], "pass_host": False},
    }
    with Gateway({"routes": said | proxied, "upstreams": upstreams}) as gateway:
        yield gateway


@pytest.fixture
def routed(routed_gateway: Gateway, upstream: ScriptedUpstream) -> Iterator[WireUnderTest]:
    with opened(routed_gateway) as door:
        yield door


@pytest.mark.case("HO-05", "HO-06")
@pytest.mark.parametrize(
    ("host", "body"),
    [("a.test", b"a.test"), ("A.TeSt", b"a.test"), ("a.test:8080", b"a.test"), ("A.TEST:", b"a.test"),
     ("a.test.", b"a.test"), ("a.test.:80", b"a.test"), ("xn--bcher-kva.test", b"idn"), ("x.wild.test", b"wild"),
     ("XN--Bcher-KVA.test:1", b"idn"),
     ("X.Wild.Test.", b"wild"), ("x.y.deep.test", b"deep"), ("[::1]", b"six"), ("[::1]:8080", b"six")],
)  # fmt: skip
def test_hosts_match_without_case_port_or_trailing_dot(routed: WireUnderTest, host: str, body: bytes) -> None:
    answer = routed.ask(host=host)
    assert (answer.status, answer.body) == (200, body)


@pytest.mark.case("HO-12")
@pytest.mark.parametrize(
    "host", ["b.test", "a.test.evil", "xa.test", "a.test..", "x.y.wild.test", "wild.test", "127.0.0.1"]
)
def test_a_host_without_a_route_is_a_404(routed: WireUnderTest, upstream: ScriptedUpstream, host: str) -> None:
    answer = routed.ask(host=host)
    routed.expect_own(answer, 404 if host != "a.test.." else {404, 400}, "NR" if host != "a.test.." else None)
    assert upstream.requests == []


@pytest.mark.case("HO-07")
def test_the_authority_of_an_absolute_target_beats_the_host_field(
    routed: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    answer = routed.ask(target="http://keep.test/x?y", host="a.test")
    if answer.status == 400:  # the contradiction may be refused as well
        assert upstream.requests == []
    else:
        assert answer.status == 200
        assert (upstream.only.target, upstream.only.headers["Host"]) == ("/x?y", "keep.test")


@pytest.mark.case("HO-07")
@pytest.mark.parametrize("target", ["http://keep.test/x", "HTTP://KEEP.TEST/x", "http://keep.test:80/x"])
def test_an_absolute_target_that_agrees_is_turned_into_its_path(
    routed: WireUnderTest, upstream: ScriptedUpstream, target: str
) -> None:
    host = target[7:-2]
    assert routed.ask(target=target, host=host).status == 200
    assert (upstream.only.target, upstream.only.headers["Host"]) == ("/x", host)


@pytest.mark.case("HO-15")
@pytest.mark.parametrize("host", ["keep.test", "Keep.Test:8080", "keep.test."])
def test_the_host_is_passed_byte_by_byte(routed: WireUnderTest, upstream: ScriptedUpstream, host: str) -> None:
    assert routed.ask(host=host).status == 200
    assert upstream.only.headers["Host"] == host


@pytest.mark.case("HO-15")
def test_or_the_targets_own_host_is_sent(routed: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert routed.ask(host="Drop.test:8080").status == 200
    assert upstream.only.headers["Host"] == upstream.authority
    assert upstream.only.headers["X-Forwarded-Host"] == "Drop.test:8080"


@pytest.mark.case("HO-16")
def test_http_1_0_without_host_is_answered_and_upstream_gets_one(
    wire: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    answer = wire.ask(host=None, version="HTTP/1.0")
    assert answer.status in {200, 400}
    if answer.status == 200:
        assert len(upstream.only.headers.all("host")) == 1
        assert upstream.only.version == "HTTP/1.1" or not wire.gateway


@pytest.mark.case("HO-18", should=True)
@pytest.mark.parametrize("path", ["/api/status", "/metrics", "/api/config"])
def test_the_admin_listener_answers_no_rebound_name(gateway: WireUnderTest, path: str) -> None:
    assert gateway.gateway
    connection = http.client.HTTPConnection("127.0.0.1", gateway.gateway.admin_port, timeout=5)
    try:
        connection.request("GET", path, headers={"Host": "attacker.test"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status in {403, 421}
    finally:
        connection.close()


@pytest.mark.case("HO-18", should=True)
@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/api/status", "/api/reload"])
def test_the_public_port_owes_every_path_to_the_routes(
    wire: WireUnderTest, upstream: ScriptedUpstream, path: str
) -> None:
    assert wire.ask(target=path).body == b"ok"
    assert upstream.only.target == path


@pytest.mark.case("HO-80")
@pytest.mark.parametrize("host", ["[::::::]", "[1:2:3:4:5:6:7:8:9]", "[fe80::1%25eth0]", "[::1"])
def test_what_is_no_ipv6_address_is_refused(gateway: WireUnderTest, upstream: ScriptedUpstream, host: str) -> None:
    gateway.expect_own(gateway.ask(host=host), 400, "BR")
    assert upstream.requests == []


@pytest.mark.case("HO-81")
def test_an_invalid_host_is_refused_beside_an_absolute_target(
    gateway: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    client = gateway.connect()
    client.send(b"GET http://wire.test/ HTTP/1.1\r\nHost: bad host/<>\r\n\r\n")
    gateway.expect_refused(client)
    assert upstream.requests == []


@pytest.mark.case("HO-82")
@pytest.mark.parametrize("values", [["1"], ["1", "1"], [" 1 "]])
def test_a_route_is_met_by_the_header_that_it_wants(routed: WireUnderTest, values: list[str]) -> None:
    assert routed.ask(host="canary.test", headers=[("x-canary", value) for value in values]).body == b"canary"


@pytest.mark.case("HO-82")
@pytest.mark.parametrize(
    "lines",
    [
        [("X-Canary", "1"), ("X-Canary", "0")],
        [("X-Canary", "0"), ("X-Canary", "1")],
        [("X-Canary", "1"), ("X-Canary", "")],
        [("X-Canary", "1, 1")],
        [("X-Canary", "1"), ("X_Canary", "0")],
        [("X.Canary", "1")],
        [("Connection", "X-Canary"), ("X-Canary", "1")],
        [("X-Canary", "1"), ("Connection", "close, x-canary")],
    ],
)
def test_a_header_with_any_other_value_is_not_the_one_that_is_wanted(
    routed: WireUnderTest, upstream: ScriptedUpstream, lines: list[tuple[str, str]]
) -> None:
    """The gateway might look at the first of several and the application at the last."""
    assert routed.ask(host="canary.test", headers=lines).body == b"ok"
    aliases = [name for name, _ in upstream.only.headers if name.lower() in {"x_canary", "x.canary"}]
    assert aliases == [], "what a route decides on has no second spelling behind the gateway"


@pytest.mark.case("HO-82")
def test_a_stranger_cannot_choose_a_route_by_what_only_a_proxy_may_say(
    routed: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    assert routed.ask(host="inner.test", headers={"X-Forwarded-User": "admin"}).body == b"ok"


# --- what is told of what is behind ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def discreet_gateway() -> Iterator[Gateway]:
    """A gateway that is asked for targets which do not answer, by people who may and may not know them."""
    dead = free_port()
    routes = {
        "all": {"host": "all.test", "to": dead, "owner": "team-secret"},
        "none": {"host": "none.test", "to": dead, "owner": "team-secret", "details": False},
        "inside": {"host": "inside.test", "to": dead, "owner": "team-secret", "details": ["10.0.0.0/8", "127.0.0.1"]},
    }
    with Gateway({"server": {"trusted_proxies": ["127.0.0.2"]}, "routes": routes}) as gateway:
        yield gateway


def told(gateway: Gateway, host: str, accept: str, source: str, **headers: str) -> tuple[str, dict[str, str]]:
    """The body of a refusal and its fields, asked for from an address of this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=5, source_address=(source, 0))
    try:
        connection.request("GET", "/secret-path", headers={"Host": host, "Accept": accept, **headers})
        answer = connection.getresponse()
        return answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()


@pytest.mark.case("HO-83")
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
@pytest.mark.parametrize(
    ("host", "source", "forwarded_for", "shown"),
    [
        ("all.test", "127.0.0.1", None, True),
        ("none.test", "127.0.0.1", None, False),
        ("inside.test", "127.0.0.1", None, True),
        ("inside.test", "127.0.0.3", None, False),
        ("inside.test", "127.0.0.2", "10.1.2.3", True),
        ("inside.test", "127.0.0.2", "203.0.113.9", False),
        ("inside.test", "127.0.0.1", "203.0.113.9", False),
    ],
)
def test_who_may_see_what_is_behind_a_route(
    discreet_gateway: Gateway, accept: str, host: str, source: str, forwarded_for: str | None, shown: bool
) -> None:
    """Asked for by the address of the client; who speaks for others without being trusted may not be the client."""
    headers = {} if forwarded_for is None else {"X-Forwarded-For": forwarded_for}
    body, fields = told(discreet_gateway, host, accept, source, **headers)
    assert ("connection_refused" in fields["Proxy-Status"]) is shown
    assert fields["Proxy-Status"].startswith("devhost")
    for secret in ("127.0.0.1:", "team-secret", "connection_refused", "refuses"):
        assert (secret in body) is shown, body
    assert fields["X-Request-ID"] in body
    assert "502" in body
    assert fields["X-Content-Type-Options"] == "nosniff"
    assert ("frame-ancestors 'none'" in fields.get("Content-Security-Policy", "")) is (accept == "text/html")


@pytest.mark.case("HO-83")
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_in_prod_strangers_are_told_nothing_even_without_a_route(accept: str) -> None:
    gateway = Gateway({}, env="prod")
    gateway.write_config({"routes": {"secret": {"host": "hidden.test", "to": free_port()}}})
    with gateway:
        for host in ("elsewhere.test", "hidden.test"):
            for source, shown in (("127.0.0.1", True), ("127.0.0.1, 203.0.113.9", False)):
                address, _, forwarded_for = source.partition(", ")
                headers = {"X-Forwarded-For": forwarded_for} if forwarded_for else {}
                body, fields = told(gateway, host, accept, address, **headers)
                assert ("/secret-path" in body) is (shown or host == "elsewhere.test"), body
                assert fields["X-Content-Type-Options"] == "nosniff"
                if not shown:
                    assert "hidden" not in body
                    assert "127.0.0.1" not in body
