"""X-Forwarded-*, Forwarded and X-Request-ID: what an untrusted client says about itself is not believed."""

import json
from collections.abc import Iterator

import pytest

from tests.support import Gateway, RawClient, ScriptedUpstream, free_port, request
from tests.support.door import WireUnderTest, opened


@pytest.fixture(scope="module")
def trusting_gateway(upstream_listener: ScriptedUpstream) -> Iterator[Gateway]:
    """A gateway that trusts its own machine and one private network."""
    server = {"trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]}
    with Gateway({"server": server, "routes": {"wire": {"host": "*", "to": upstream_listener.url}}}) as gateway:
        yield gateway


@pytest.fixture
def trusting(trusting_gateway: Gateway, upstream: ScriptedUpstream) -> Iterator[WireUnderTest]:
    with opened(trusting_gateway) as door:
        yield door


@pytest.fixture(scope="module")
def both_families(upstream_listener: ScriptedUpstream) -> Iterator[tuple[Gateway, int]]:
    """A gateway on an address of each family, and the port of its IPv6 one, that trusts the loopback of both."""
    port = free_port()
    gateway = Gateway({})
    server = {
        "bind": [f"127.0.0.1:{gateway.port}", f"[::]:{port}"],
        "trusted_proxies": ["127.0.0.1/32", "::1/128", "10.0.0.0/8"],
    }
    gateway.write_config({"server": server, "routes": {"wire": {"host": "*", "to": upstream_listener.url}}})
    with gateway:
        yield gateway, port


@pytest.mark.case("XF-01", "XF-02")
@pytest.mark.parametrize("lines", [["6.6.6.6"], ["6.6.6.6, 7.7.7.7"], ["6.6.6.6", "7.7.7.7"], [""], ["unknown, _x"]])
def test_an_untrusted_list_is_replaced_by_the_peer(
    wire: WireUnderTest, upstream: ScriptedUpstream, lines: list[str]
) -> None:
    wire.ask(headers=[("X-Forwarded-For", line) for line in lines])
    came = [member.strip() for value in upstream.only.headers.all("x-forwarded-for") for member in value.split(",")]
    assert came[-1] == "127.0.0.1"
    if wire.gateway:
        assert came == ["127.0.0.1"]


@pytest.mark.case("XF-03")
def test_scheme_host_and_port_are_the_real_ones(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    wire.ask(headers={"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil", "X-Forwarded-Port": "444"})
    headers = upstream.only.headers
    assert headers["X-Forwarded-Proto"] == "http"
    assert headers["X-Forwarded-Host"] == "wire.test"
    assert headers["X-Forwarded-Port"] in {"80", str(wire.port)}


@pytest.mark.case("XF-04")
def test_an_untrusted_forwarded_field_is_dropped(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    gateway.ask(headers={"Forwarded": "for=6.6.6.6;proto=https;host=evil"})
    assert "6.6.6.6" not in ", ".join(upstream.only.headers.all("forwarded"))


@pytest.mark.case("XF-07")
def test_a_trusted_peers_list_is_kept_and_appended_to(trusting: WireUnderTest, upstream: ScriptedUpstream) -> None:
    answer = trusting.ask(
        headers={
            "X-Forwarded-For": "6.6.6.6, 9.9.9.9, 10.1.2.3",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "pub",
        }
    )
    headers = upstream.only.headers
    joined = [member.strip() for value in headers.all("x-forwarded-for") for member in value.split(",")]
    assert joined == ["6.6.6.6", "9.9.9.9", "10.1.2.3", "127.0.0.1"]
    assert headers["X-Forwarded-Proto"] == "https"
    assert headers["X-Forwarded-Host"] == "pub"
    assert trusting.entry(answer)["client"] == "9.9.9.9", "the right-most address that is not trusted"


@pytest.mark.case("XF-07")
@pytest.mark.parametrize("value", ["", "junk", "6.6.6.6, junk", "6.6.6.6:1234", "[2001:db8::1]:80", "2001:db8::1"])
def test_a_trusted_peers_odd_list_does_no_harm(trusting: WireUnderTest, upstream: ScriptedUpstream, value: str) -> None:
    answer = trusting.ask(headers={"X-Forwarded-For": value})
    assert answer.status == 200
    assert upstream.only.headers.all("x-forwarded-for")[-1].endswith("127.0.0.1")
    trusting.entry(answer)


@pytest.mark.case("XF-07")
@pytest.mark.parametrize("family", ["IPv4", "IPv6", "IPv4 mapped into IPv6"])
def test_trust_holds_for_both_families(
    both_families: tuple[Gateway, int], upstream: ScriptedUpstream, family: str
) -> None:
    """An IPv4 peer of an IPv6 listener comes as ``::ffff:127.0.0.1``; a listener for IPv6 alone never sees one."""
    gateway, six = both_families
    host = "::1" if family == "IPv6" else "127.0.0.1"
    try:
        client = RawClient(gateway.port if family == "IPv4" else six, host=host)
    except ConnectionRefusedError:
        assert family == "IPv4 mapped into IPv6"
        return
    with client:
        client.send(request(headers={"X-Forwarded-For": "6.6.6.6"}))
        answer = client.read_response()
    assert answer.status == 200
    assert ", ".join(upstream.only.headers.all("x-forwarded-for")) == f"6.6.6.6, {host}"
    assert gateway.access_entry(request_id=answer.headers["X-Request-ID"])["client"] == "6.6.6.6"


@pytest.mark.case("XF-07")
def test_a_mapped_address_in_the_list_is_the_address_it_maps(
    trusting: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    answer = trusting.ask(headers={"X-Forwarded-For": "9.9.9.9, ::ffff:10.1.2.3"})
    assert trusting.entry(answer)["client"] == "9.9.9.9"


@pytest.mark.case("XF-07")
@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("6.6.6.6, 203.0.113.9:51008", "203.0.113.9"),
        ("6.6.6.6, [2001:db8::7]:4711", "2001:db8::7"),
        ('"[2001:db8::7]:4711", 10.1.2.3:443', "2001:db8::7"),
        ("6.6.6.6, ::ffff:203.0.113.9", "203.0.113.9"),
        ("fe80::1%eth0", "fe80::1"),
        ("6.6.6.6, " + "10.0.0.1, " * 30 + "203.0.113.9", "203.0.113.9"),
    ],
)
def test_an_address_counts_without_its_port(
    trusting: WireUnderTest, upstream: ScriptedUpstream, value: str, client: str
) -> None:
    answer = trusting.ask(headers={"X-Forwarded-For": value})
    assert trusting.entry(answer)["client"] == client
    headers = upstream.only.headers
    assert headers["X-Real-IP"] == client
    assert headers.all("forwarded") == [f'for={node(client)};proto=http;host="wire.test"']


def node(address: str) -> str:
    """An address as Forwarded writes it (RFC 7239 §6)."""
    return f'"[{address}]"' if ":" in address else address


@pytest.mark.case("XF-81")
@pytest.mark.parametrize("door", ["gateway", "trusting"])
def test_the_address_of_the_client_is_only_what_is_made_here(
    request: pytest.FixtureRequest, upstream: ScriptedUpstream, door: str
) -> None:
    """Behind a balancer that only appends to X-Forwarded-For, what a stranger says reaches us from a trusted peer."""
    wire: WireUnderTest = request.getfixturevalue(door)
    forged = {"X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6;host=evil", "X-Forwarded-For": "203.0.113.9"}
    wire.ask(headers=forged)
    client = "203.0.113.9" if door == "trusting" else "127.0.0.1"
    headers = upstream.only.headers
    assert headers.all("x-real-ip") == [client]
    assert headers.all("forwarded") == [f'for={client};proto=http;host="wire.test"']


@pytest.mark.case("XF-82")
@pytest.mark.parametrize("door", ["gateway", "trusting"])
@pytest.mark.parametrize("mark", list("!#$%&'*+.^_`|~"))
def test_no_punctuation_makes_another_name_of_it(
    request: pytest.FixtureRequest, upstream: ScriptedUpstream, door: str, mark: str
) -> None:
    """Servers that make variables of names (CGI, WSGI, PHP) cannot tell these from what the gateway vouches for."""
    wire: WireUnderTest = request.getfixturevalue(door)
    names = [
        "X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-User", "X-Request-ID", "Content-Length",
        "Transfer-Encoding", "Remote-User", "X-Auth-Request-Email", "X-Client-Cert-Subject", "X-Devhost-Overlay",
    ]  # fmt: skip
    wire.ask("POST", headers=[(name.replace("-", mark), "6.6.6.6") for name in names], body=b"")
    folded = {variable(name) for name in names}
    for name, value in upstream.only.headers:
        assert variable(name) not in folded or "6.6.6.6" not in value, (name, value)


def variable(name: str) -> str:
    """The variable that a CGI-like server makes of a field (RFC 3875 §4.1.18)."""
    return "".join(character if character.isalnum() else "_" for character in name).upper()


@pytest.mark.case("XF-83")
@pytest.mark.parametrize(
    "name", ["X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Server", "Remote-User", "X-Auth-Request-User",
             "X-Client-Cert-Subject", "X-Devhost-Replay", "True-Client-IP", "X-Original-URL", "X-Remote-User",
             "X-WebAuth-User", "X-Azure-ClientIP", "Fly-Client-IP", "X-SSL-Client-Verify", "Front-End-Https",
             "Client-Cert", "Script-Name"],
)  # fmt: skip
def test_a_trusted_peer_may_say_what_is_listed_and_no_more(
    trusting: WireUnderTest, upstream: ScriptedUpstream, name: str
) -> None:
    trusting.ask(headers={name: "forged", "X-Forwarded-Prefix": "/outer", "X-Forwarded-Host": "pub"})
    headers = upstream.only.headers
    assert headers.all(name) == []
    assert (headers["X-Forwarded-Prefix"], headers["X-Forwarded-Host"]) == ("/outer", "pub")


@pytest.mark.case("XF-84")
@pytest.mark.parametrize(
    ("host", "headers", "port"),
    [
        ("wire.test", {}, "80"),
        ("wire.test:7777", {}, "7777"),
        ("[2001:db8::7]:99", {}, "99"),
        ("wire.test:7777", {"X-Forwarded-Proto": "https"}, "7777"),
        ("wire.test", {"X-Forwarded-Proto": "https"}, "443"),
        ("wire.test:7777", {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "pub.test"}, "443"),
        ("wire.test:7777", {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "pub.test:8443"}, "8443"),
        ("wire.test", {"X-Forwarded-Proto": "https", "X-Forwarded-Port": "444"}, "444"),
    ],
)
def test_the_port_is_the_one_that_the_client_used(
    trusting: WireUnderTest,
    gateway: WireUnderTest,
    upstream: ScriptedUpstream,
    host: str,
    headers: dict[str, str],
    port: str,
) -> None:
    trusting.ask(host=host, headers=headers)
    assert upstream.only.headers.all("x-forwarded-port") == [port]
    upstream.reset()
    gateway.ask(host=host, headers=headers)
    assert upstream.only.headers.all("x-forwarded-port") == [host.rpartition(":")[2] if ":" in host else "80"]


@pytest.mark.case("XF-10")
def test_the_client_of_the_log_is_the_peer_whatever_it_says(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    answer = gateway.ask(headers={"X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6", "X-Real-IP": "6.6.6.6"})
    assert gateway.entry(answer)["client"] == "127.0.0.1"


@pytest.mark.case("XF-11", should=True)
@pytest.mark.parametrize("sent", [None, "", "a" * 10_000, 'quote"d', "a\\nb", "caf\xe9", "<script>"])
def test_an_invalid_or_missing_request_id_is_replaced(
    trusting: WireUnderTest, upstream: ScriptedUpstream, sent: str | None
) -> None:
    answer = trusting.ask(headers={} if sent is None else {"X-Request-ID": sent})
    given = answer.headers["X-Request-ID"]
    assert given
    assert given != sent
    assert len(given) <= 200
    assert upstream.only.headers["X-Request-ID"] == given
    assert trusting.entry(answer)["request_id"] == given


@pytest.mark.case("XF-11", should=True)
def test_a_trusted_peers_valid_request_id_is_kept(trusting: WireUnderTest, upstream: ScriptedUpstream) -> None:
    answer = trusting.ask(headers={"X-Request-ID": "abc-123.DEF_4"})
    assert answer.headers["X-Request-ID"] == "abc-123.DEF_4"
    assert upstream.only.headers["X-Request-ID"] == "abc-123.DEF_4"


@pytest.mark.case("XF-11", should=True)
def test_an_untrusted_request_id_is_replaced(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    answers = [gateway.ask(headers={"X-Request-ID": "abc-123"}) for _ in range(2)]
    given = [answer.headers["X-Request-ID"] for answer in answers]
    assert "abc-123" not in given
    assert len(set(given)) == 2
    assert [received.headers["X-Request-ID"] for received in upstream.requests] == given


@pytest.mark.case("XF-11", should=True)
def test_a_log_line_cannot_be_forged(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    forged = 'x","status":200,"client":"1.2.3.4'
    answer = gateway.ask(headers={"User-Agent": forged, "Referer": 'http://a/\t"b'})
    line = gateway.entry(answer)
    assert line["user_agent"] == forged
    assert line["client"] == "127.0.0.1"
    assert json.loads(json.dumps(line)) == line


@pytest.mark.case("XF-12")
@pytest.mark.parametrize(
    "name", ["X-Real-IP", "X-Forwarded-User", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-By"]
)
def test_forged_internal_fields_do_not_reach_the_upstream(
    gateway: WireUnderTest, upstream: ScriptedUpstream, name: str
) -> None:
    gateway.ask(headers={name: "6.6.6.6"})
    assert "6.6.6.6" not in upstream.only.headers.all(name)


@pytest.mark.case("XF-80")
def test_traceparent_is_kept(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    value = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = wire.ask(headers={"traceparent": value})
    assert upstream.only.headers["traceparent"] == value
    if wire.gateway:
        assert wire.entry(answer)["traceparent"] == value
