"""Upgrades: the handshake is the upstream's to decide, and after 101 bytes are bytes."""

import contextlib
import hashlib
import threading
import time

import pytest

from tests.support import Received, ScriptedUpstream, UpstreamConnection, response, wait_until
from tests.support.client import RawClient
from tests.support.door import WireUnderTest
from tests.support.gateway import rss_kib
from tests.support.waiting import patient, seconds_since
from tests.support.websocket import (
    BINARY,
    CLOSE,
    KEY,
    PING,
    PONG,
    TEXT,
    Frame,
    accept_for,
    acceptance,
    close_payload,
    echo_server,
    handshake,
    read_frame,
)

MASK = b"\x01\x02\x03\x04"
MIB = 1 << 20


def opened(wire: WireUnderTest, target: str = "/socket", headers: tuple[tuple[str, str], ...] = ()) -> RawClient:
    """A client whose handshake was accepted."""
    client = wire.connect(timeout=5)
    client.send(handshake(target, headers, host=wire.host))
    answer = client.start_response()
    assert answer.status == 101, answer
    assert answer.headers["Sec-WebSocket-Accept"] == accept_for(KEY)
    assert answer.headers["Upgrade"].lower() == "websocket"
    assert "upgrade" in answer.headers.tokens("connection")
    return client


@pytest.mark.case("WS-01")
def test_a_handshake_and_an_echo(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(echo_server)
    client = opened(wire)
    client.send(Frame(TEXT, b"PING").encode(MASK))
    assert read_frame(client) == Frame(TEXT, b"PING")


@pytest.mark.case("WS-02", "WS-03")
@pytest.mark.parametrize("status", [200, 301, 401, 403, 404, 426, 500, 503])
def test_the_upstreams_refusal_is_passed_as_it_is(wire: WireUnderTest, upstream: ScriptedUpstream, status: int) -> None:
    upstream.serve(response(status, {"WWW-Authenticate": "Basic", "X-Why": "no"}, b"because"))
    client = wire.connect()
    client.send(handshake(host=wire.host))
    answer = client.read_response()
    assert (answer.status, answer.headers["X-Why"], answer.body) == (status, "no", b"because")
    upstream.serve(response())
    client.send(wire.request())
    assert client.read_response().status == 200, "the connection speaks HTTP on"


@pytest.mark.case("WS-04")
@pytest.mark.parametrize("accept", ["AAAAAAAAAAAAAAAAAAAAAAAAAAA=", None], ids=["wrong", "missing"])
def test_a_wrong_accept_is_never_mended(wire: WireUnderTest, upstream: ScriptedUpstream, accept: str | None) -> None:
    lines = {"Upgrade": "websocket", "Connection": "Upgrade"} | ({"Sec-WebSocket-Accept": accept} if accept else {})
    upstream.serve_connection(
        lambda connection: (connection.read_head(), connection.send(response(101, lines, None)), connection.hold())
    )
    client = wire.connect()
    client.send(handshake(host=wire.host))
    answer = client.start_response()
    if answer.status == 101:  # a tunnel does not judge what only the client can judge
        assert answer.headers.all("sec-websocket-accept") == ([accept] if accept else [])
    else:
        assert answer.status == 502


@pytest.mark.case("WS-05")
@pytest.mark.parametrize("key", [None, "", "short", "not base64 at all!!!!!!!", "AAAA"])
def test_a_bad_key_is_refused_or_the_upstreams_to_refuse(
    wire: WireUnderTest, upstream: ScriptedUpstream, key: str | None
) -> None:
    upstream.serve(response(400, (), b"upstream says no"))
    fields = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    answer = wire.ask(headers=fields | ({} if key is None else {"Sec-WebSocket-Key": key}))
    assert answer.status == 400
    for received in upstream.requests:
        assert received.headers.all("sec-websocket-key") == ([] if key is None else [key]), "never mended"


@pytest.mark.case("WS-06")
def test_an_unsupported_version_is_the_upstreams_to_refuse(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(426, {"Sec-WebSocket-Version": "13"}, b""))
    fields = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "99", "Sec-WebSocket-Key": KEY}
    answer = wire.ask(headers=fields)
    assert (answer.status, answer.headers["Sec-WebSocket-Version"]) == (426, "13")
    assert upstream.only.headers["Sec-WebSocket-Version"] == "99"


@pytest.mark.case("WS-07")
def test_subprotocols_pass_both_ways(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    def choosing(connection: UpstreamConnection, received: Received) -> None:
        connection.send(acceptance(received, (("Sec-WebSocket-Protocol", "superchat"),)))
        connection.hold()

    upstream.serve(choosing)
    client = wire.connect()
    client.send(handshake(headers=(("Sec-WebSocket-Protocol", "chat, superchat"),), host=wire.host))
    answer = client.start_response()
    assert (answer.status, answer.headers["Sec-WebSocket-Protocol"]) == (101, "superchat")
    assert upstream.only.headers["Sec-WebSocket-Protocol"] == "chat, superchat"


@pytest.mark.case("WS-09")
def test_fragments_stay_fragments(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(echo_server)
    client = opened(wire)
    frames = [Frame(TEXT, b"one", fin=False), Frame(0, b"two", fin=False), Frame(PING, b"!"), Frame(0, b"", fin=True)]
    for frame in frames:
        client.send(frame.encode(MASK))
    expected = [frames[0], frames[1], Frame(PONG, b"!"), frames[3]]
    assert [read_frame(client) for _ in expected] == expected


@pytest.mark.case("WS-10", "WS-11", "WS-12", "WS-13")
@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 3000, 4999])
def test_the_upstreams_close_code_and_reason_arrive(wire: WireUnderTest, upstream: ScriptedUpstream, code: int) -> None:
    def closing(connection: UpstreamConnection, received: Received) -> None:
        connection.send(acceptance(received))
        read_frame(connection)
        connection.send(Frame(CLOSE, close_payload(code, "why")).encode())
        assert read_frame(connection).opcode == CLOSE
        connection.close()

    upstream.serve(closing)
    client = opened(wire)
    client.send(Frame(TEXT, b"close%d" % code).encode(MASK))
    assert read_frame(client) == Frame(CLOSE, close_payload(code, "why"))
    client.send(Frame(CLOSE, close_payload(code)).encode(MASK))
    assert client.wait_end(2)


@pytest.mark.case("WS-14", "WS-15")
@pytest.mark.parametrize("payload", [b"", close_payload(1001, "bye")], ids=["empty", "1001 bye"])
def test_the_clients_close_arrives_and_is_answered(
    wire: WireUnderTest, upstream: ScriptedUpstream, payload: bytes
) -> None:
    seen: list[Frame] = []

    def answering(connection: UpstreamConnection, received: Received) -> None:
        connection.send(acceptance(received))
        seen.append(read_frame(connection))
        connection.send(Frame(CLOSE, seen[0].payload).encode())
        connection.finish()

    upstream.serve(answering)
    client = opened(wire)
    client.send(Frame(CLOSE, payload).encode(MASK))
    assert read_frame(client) == Frame(CLOSE, payload)
    assert client.wait_end(2) == "fin"
    assert (seen[0].opcode, seen[0].payload) == (CLOSE, payload)


@pytest.mark.case("WS-16")
@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_upstream_that_vanishes_ends_the_clients_side(
    wire: WireUnderTest, upstream: ScriptedUpstream, how: str
) -> None:
    def vanishing(connection: UpstreamConnection, received: Received) -> None:
        connection.send(acceptance(received))
        read_frame(connection)
        getattr(connection, how)()

    upstream.serve(vanishing)
    client = opened(wire)
    client.send(Frame(TEXT, b"x").encode(MASK))
    assert client.wait_end(1.5)


@pytest.mark.case("WS-17")
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_vanishes_ends_the_upstreams_side(
    wire: WireUnderTest, upstream: ScriptedUpstream, how: str
) -> None:
    upstream.serve(lambda connection, received: (connection.send(acceptance(received)), connection.hold()))
    client = opened(wire)
    getattr(client, how)()
    wait_until(lambda: upstream.connections[0].end, 1, "the upstream socket being closed")


@pytest.mark.case("WS-19")
def test_a_ping_is_answered_with_its_payload(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(echo_server)
    client = opened(wire)
    client.send(Frame(PING, b"payload").encode(MASK))
    assert read_frame(client) == Frame(PONG, b"payload")


@pytest.mark.case("WS-20")
def test_the_upstreams_pings_are_relayed_and_a_quiet_client_is_not_killed(
    wire: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    def pinging(connection: UpstreamConnection, received: Received) -> None:
        connection.send(acceptance(received))
        for number in range(5):
            time.sleep(0.3)  # together longer than the HTTP timeouts, each far shorter than the tunnel's
            connection.send(Frame(PING, b"%d" % number).encode())
        connection.hold()

    upstream.serve(pinging)
    client = opened(wire)
    assert [read_frame(client).payload for _ in range(5)] == [b"%d" % number for number in range(5)]
    assert client.silent(0.1)


def flood(client: RawClient, frame: Frame) -> threading.Thread:
    sender = threading.Thread(target=client.send, args=(frame.encode(MASK), 20))
    sender.start()
    return sender


@pytest.mark.case("WS-08", "WS-21")
@pytest.mark.parametrize("size", [125, 126, 65535, 65536, 3 * MIB, 16 * MIB + 1])
def test_messages_of_any_size_pass_both_ways(wire: WireUnderTest, upstream: ScriptedUpstream, size: int) -> None:
    upstream.serve(echo_server)
    payload = hashlib.shake_256(b"ws").digest(size)
    client = opened(wire)
    client.remember = False
    sender = flood(client, Frame(BINARY, payload))
    frame = read_frame(client, timeout=20)
    sender.join(5)
    assert frame == Frame(BINARY, payload)


@pytest.mark.case("WS-22")
def test_a_frame_glued_to_the_handshake_is_not_lost(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(echo_server)
    client = wire.connect()
    client.send(handshake(host=wire.host) + Frame(TEXT, b"early").encode(MASK))
    answer = client.start_response()
    if answer.status == 101:
        assert read_frame(client, timeout=2) == Frame(TEXT, b"early")
    else:
        assert answer.status == 400


@pytest.mark.case("WS-23")
def test_a_frame_glued_to_the_101_is_delivered(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(
        lambda connection, received: (
            connection.send(acceptance(received) + Frame(TEXT, b"early").encode()),
            connection.hold(),
        )
    )
    assert read_frame(opened(wire), timeout=2) == Frame(TEXT, b"early")


@pytest.mark.case("WS-24")
@pytest.mark.parametrize("side", ["upstream", "client"])
def test_invalid_text_is_passed_or_closes_both_sides(
    wire: WireUnderTest, upstream: ScriptedUpstream, side: str
) -> None:
    upstream.serve(echo_server)
    client = opened(wire)
    client.send(Frame(TEXT if side == "client" else BINARY, b"\xff\xfe").encode(MASK))
    frame = read_frame(client)
    assert frame.payload == b"\xff\xfe" or (frame.opcode == CLOSE and frame.payload[:2] == close_payload(1007))


@pytest.mark.case("WS-26")
def test_compression_is_negotiated_end_to_end(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    offer = "permessage-deflate; client_max_window_bits"

    def accepting(connection: UpstreamConnection, received: Received) -> None:
        connection.send(acceptance(received, (("Sec-WebSocket-Extensions", "permessage-deflate"),)))
        frame = read_frame(connection)
        connection.send(Frame(frame.opcode, frame.payload, rsv=frame.rsv).encode())
        connection.hold()

    upstream.serve(accepting)
    client = wire.connect()
    client.send(handshake(headers=(("Sec-WebSocket-Extensions", offer),), host=wire.host))
    answer = client.start_response()
    assert (answer.status, answer.headers["Sec-WebSocket-Extensions"]) == (101, "permessage-deflate")
    assert upstream.only.headers["Sec-WebSocket-Extensions"] == offer
    client.send(Frame(TEXT, b"\xf2\x48\xcd\xc9\xc9\x07\x00", rsv=4).encode(MASK))
    assert read_frame(client) == Frame(TEXT, b"\xf2\x48\xcd\xc9\xc9\x07\x00", rsv=4)


@pytest.mark.case("WS-28")
@pytest.mark.long_over_tls
def test_an_upstream_that_stops_reading_throttles_the_client(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    go = threading.Event()
    upstream.serve(lambda connection, received: (connection.send(acceptance(received)), connection.pause(go)))
    client = opened(wire)
    before = rss_kib(wire.gateway.worker_pids()[0]) if wire.gateway else 0
    went = client.send_what_fits(Frame(BINARY, b"x" * 64 * MIB).encode(MASK), 0.4)
    assert went < 64 * MIB, "send blocks"
    if wire.gateway:
        assert rss_kib(wire.gateway.worker_pids()[0]) - before < 8 * 1024
    go.set()


@pytest.mark.case("WS-29")
def test_a_client_that_stops_reading_throttles_the_upstream(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    went: list[int] = []

    def flooding(connection: UpstreamConnection, received: Received) -> None:
        connection.send(acceptance(received))
        went.append(connection.send_what_fits(b"x" * 64 * MIB, 0.4))

    upstream.serve(flooding)
    client = opened(wire)
    before = rss_kib(wire.gateway.worker_pids()[0]) if wire.gateway else 0
    wait_until(lambda: went, 5)
    assert went[0] < 64 * MIB
    if wire.gateway:
        assert rss_kib(wire.gateway.worker_pids()[0]) - before < 8 * 1024
    assert client.end is None


@pytest.mark.case("WS-30")
def test_a_post_with_an_upgrade_and_a_body_stays_in_step(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    def after_the_body(connection: UpstreamConnection, received: Received) -> None:
        connection.read_body(received)
        connection.send(acceptance(received))
        connection.send(connection.read_exactly(5))
        connection.hold()

    upstream.serve(after_the_body)
    client = wire.connect()
    fields = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13"}
    client.send(wire.request("POST", "/socket", fields, b"b" * 1024))
    answer = client.start_response(timeout=3)
    assert answer.status in {101, 400, 405}
    if answer.status == 101:
        assert bytes(upstream.only.body) == b"b" * 1024
        client.send(b"hello")
        assert client.read_exactly(5) == b"hello"


@pytest.mark.case("WS-31")
def test_http_1_0_cannot_upgrade(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(200, (), b"plain"))
    client = wire.connect()
    client.send(handshake(host=wire.host, version="HTTP/1.0"))
    answer = client.read_response()
    assert (answer.status, answer.body) == (200, b"plain")
    assert "Upgrade" not in upstream.only.headers


@pytest.mark.case("WS-31")
@pytest.mark.parametrize(
    "lines",
    [
        [("Connection", "Upgrade"), ("Upgrade", "foo, websocket")],
        [("Connection", "keep-alive, Upgrade"), ("Upgrade", "websocket")],
        [("Connection", "keep-alive"), ("Connection", "Upgrade"), ("Upgrade", "foo"), ("Upgrade", "websocket")],
        [("Connection", "uPGRADE"), ("Upgrade", "WebSocket")],
    ],
    ids=["a list", "with keep-alive", "two lines each", "mixed case"],
)
def test_connection_and_upgrade_are_lists(
    wire: WireUnderTest, upstream: ScriptedUpstream, lines: list[tuple[str, str]]
) -> None:
    upstream.serve(echo_server)
    client = wire.connect()
    key = [("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Version", "13")]
    client.send(wire.request("GET", "/socket", lines + key))
    assert client.start_response().status == 101
    assert "websocket" in upstream.only.headers.tokens("upgrade")
    client.send(Frame(TEXT, b"x").encode(MASK))
    assert read_frame(client) == Frame(TEXT, b"x")


@pytest.mark.case("WS-32")
def test_a_handshake_is_forwarded_like_any_request(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(echo_server)
    fields = (
        ("Origin", "http://o.test"),
        ("Cookie", "a=b"),
        ("Authorization", "Basic eDp5"),
        ("X-Forwarded-For", "6.6.6.6"),
    )
    client = opened(wire, "/a%2Fb?x", fields)
    received = upstream.only
    assert received.target == "/a%2Fb?x"
    for name, value in fields[:3]:
        assert received.headers[name] == value
    assert received.headers.all("x-forwarded-for")[-1].endswith("127.0.0.1")
    assert received.headers["X-Forwarded-Proto"] == "http"
    client.close()
    if wire.gateway:
        assert received.headers["X-Forwarded-For"] == "127.0.0.1"
        assert received.headers["X-Request-ID"]
        line = wire.gateway.access_entry(target="/a%2Fb?x")
        assert line["status"] == 101


@pytest.mark.case("WS-33")
@pytest.mark.parametrize("side", ["client", "upstream"])
def test_a_half_closed_tunnel_still_carries_the_other_direction(
    wire: WireUnderTest, upstream: ScriptedUpstream, side: str
) -> None:
    seen = bytearray()

    def half(connection: UpstreamConnection, received: Received) -> None:
        connection.send(acceptance(received))
        if side == "client":
            connection.wait_end(3)
            for _ in range(5):
                connection.send(b"tick")
                time.sleep(0.05)
        else:
            connection.half_close()
            with contextlib.suppress(TimeoutError):
                seen.extend(connection.read_to_end(3))
        connection.close()

    upstream.serve(half)
    client = opened(wire)
    if side == "client":
        client.half_close()
        assert client.read_to_end(4) in {b"tick" * n for n in range(1 if wire.gateway is None else 5, 6)}
    else:
        assert client.wait_end(2) == "fin"
        with contextlib.suppress(OSError):
            for _ in range(5):
                client.send(b"tick")
                time.sleep(0.02)
        client.close()
        wait_until(lambda: upstream.connections[0].end, 3)
        if wire.gateway and not upstream.context:  # before TLS 1.3, who says close_notify has ended both ways
            assert bytes(seen) == b"tick" * 5
    wait_until(lambda: upstream.connections[0].sock.fileno() < 0, 3, "no leak")


@pytest.mark.case("WS-34")
@pytest.mark.long_over_tls
def test_an_idle_tunnel_ends_at_its_own_timeout_which_traffic_resets(
    gateway: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    upstream.serve(echo_server)
    client = opened(gateway)
    start = time.monotonic()
    for _ in range(2):
        assert client.silent(1.4), "longer than the HTTP timeouts"
        client.send(Frame(TEXT, b"x").encode(MASK))
        assert read_frame(client) == Frame(TEXT, b"x")
    assert client.wait_end(5)
    assert 2 * 1.4 + 2.7 < seconds_since(start) < patient(2 * 1.4 + 4.5)
    wait_until(lambda: upstream.connections[0].end, 1)


@pytest.mark.case("WS-35")
def test_a_refused_connection_answers_the_handshake_in_http(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.refuse()
    client = wire.connect()
    client.send(handshake(host=wire.host))
    wire.expect_own(client.read_response(), 502 if wire.gateway else {502, 503}, "UF")


@pytest.mark.case("WS-35")
@pytest.mark.parametrize(("does", "status", "flag"), [("hold", 504, "UT"), ("close", 502, "UC")])
def test_an_upstream_that_fails_in_the_handshake_answers_in_http(
    wire: WireUnderTest, upstream: ScriptedUpstream, does: str, status: int, flag: str
) -> None:
    upstream.serve_connection(lambda connection: (connection.read_head(), getattr(connection, does)()))
    client = wire.connect()
    client.send(handshake(host=wire.host))
    wire.expect_own(client.read_response(), status, flag)


@pytest.mark.case("WS-80")
def test_any_protocol_may_be_upgraded_to(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    def foo(connection: UpstreamConnection, received: Received) -> None:
        connection.send(response(101, {"Upgrade": "foo/2", "Connection": "Upgrade"}, None) + b"\x00greeting")
        connection.send(connection.read_exactly(4)[::-1])
        connection.hold()

    upstream.serve(foo)
    client = wire.send(headers={"Connection": "Upgrade", "Upgrade": "foo/2"})
    answer = client.start_response()
    assert (answer.status, answer.headers["Upgrade"]) == (101, "foo/2")
    assert client.read_exactly(9) == b"\x00greeting"
    client.send(b"\x01\x02\x03\x04")
    assert client.read_exactly(4) == b"\x04\x03\x02\x01"


@pytest.mark.case("WS-81")
def test_a_101_nobody_asked_for_is_a_502(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(101, {"Upgrade": "foo", "Connection": "Upgrade"}, None))
    wire.expect_own(wire.ask("POST", body=b""), 502, "UP")


@pytest.mark.case("WS-82")
def test_open_tunnels_are_counted(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert gateway.gateway
    metrics = gateway.gateway.metrics
    upstream.serve(echo_server)
    client = opened(gateway)
    wait_until(lambda: metrics().value("devhost_websockets") == 1)
    client.close()
    wait_until(lambda: metrics().value("devhost_websockets") == 0)


@pytest.mark.case("WS-84")
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 101 Switching\r\nUpgrade: foo\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: close\r\nUpgrade: foo\r\n\r\n",
        b"HTTP/1.0 101 Switching\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
    ],
    ids=["without Connection", "Connection: close", "HTTP/1.0"],
)
def test_a_switch_that_is_none_is_not_mended(gateway: WireUnderTest, upstream: ScriptedUpstream, head: bytes) -> None:
    upstream.serve(head)
    answer = gateway.send(headers={"Connection": "Upgrade", "Upgrade": "foo"}).read_response()
    gateway.expect_own(answer, 502, "UP")


@pytest.mark.case("WS-85")
def test_h2c_is_taken_out_of_a_list_of_upgrades(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    fields = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c, foo, H2C", "HTTP2-Settings": "AAA"}
    answer = gateway.ask(headers=fields)
    assert answer.status == 200
    assert upstream.only.headers.all("upgrade") == ["foo"]
    assert not upstream.only.headers.all("http2-settings")


@pytest.mark.case("WS-86")
def test_426_says_what_to_upgrade_to(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(426, {"Upgrade": "foo/2", "Connection": "Upgrade"}, b"no"))
    answer = gateway.ask()
    assert (answer.status, answer.headers["Upgrade"]) == (426, "foo/2")
    assert "upgrade" in answer.headers.tokens("connection")
