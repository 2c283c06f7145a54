"""Peers that do not take what is sent to them, and peers that go while nothing is read from them."""

import time

import pytest

from tests.support import RawClient, Received, ScriptedUpstream, UpstreamConnection, response, wait_until
from tests.support.door import WireUnderTest
from tests.support.waiting import patient, seconds_since

MIB = 1 << 20


@pytest.mark.case("SL-80")
def test_a_client_that_takes_no_answers_is_given_no_more_of_them(
    gateway: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    upstream.serve(response(200, {}, b"x" * 30_000))
    client = gateway.connect(receive_buffer=4096)
    asked = gateway.request()
    for count in range(1, 601):
        client.send(asked)
        # One by one: what is asked for is answered before the next, as long as the gateway goes on answering.
        try:
            wait_until(lambda number=count: len(upstream.requests) >= number, 0.3)
        except AssertionError:
            break
    assert len(upstream.requests) < 400, "the kernel takes some megabytes, and the gateway next to nothing"


@pytest.mark.case("CD-80")
@pytest.mark.parametrize("what", ["upload", "pipeline"])
def test_a_reset_is_noticed_while_nothing_is_read(
    gateway: WireUnderTest, upstream: ScriptedUpstream, what: str
) -> None:
    upstream.serve(lambda connection, _: connection.pause(upstream.stopping, 30))
    client = gateway.connect()
    if what == "upload":
        client.send(gateway.request("POST", "/u", {"Content-Length": "4000000000"}))
        client.send_what_fits(b"u" * 64 * MIB, 0.5)
    else:
        client.send(gateway.request(target="/u"))
        upstream.wait_requests()
        client.send_what_fits(gateway.request(target="/behind") * 400_000, 0.3)
    start = time.monotonic()
    client.reset()
    wait_until(lambda: upstream.connections[0].left, 2, "the end of the upstream's connection")
    assert seconds_since(start) < patient(1)
    assert gateway.gateway
    assert gateway.gateway.access_entry(target="/u")["flag"] == "DC"


@pytest.mark.case("WS-83")
def test_a_reset_is_noticed_in_a_tunnel_whose_other_end_does_not_read(
    gateway: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    def switch(connection: UpstreamConnection, _: Received) -> None:
        connection.send(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n")
        connection.pause(upstream.stopping, 30)

    upstream.serve(switch)
    client = gateway.send(headers={"Connection": "Upgrade", "Upgrade": "foo"})
    assert client.start_response().status == 101
    client.send_what_fits(b"u" * 64 * MIB, 0.5)
    client.reset()
    wait_until(lambda: upstream.connections[0].left, 1.5, "the end of the upstream's connection")


@pytest.mark.case("LI-80")
def test_empty_lines_by_the_megabyte_hold_nobody_up(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    flood = gateway.connect()
    flood.send(b"\r\n" * (MIB // 2))
    start = time.monotonic()
    assert gateway.ask().status == 200
    assert seconds_since(start) < patient(0.5)
    flood.send(gateway.request())
    assert flood.read_response().status == 200


@pytest.mark.case("SL-81")
def test_empty_lines_in_drips_do_not_move_the_deadline(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    client = gateway.connect()
    start = time.monotonic()
    while seconds_since(start) < 8 and not client.end:
        try:
            client.send(b"\r" if client.sent % 2 == 0 else b"\n")
        except OSError:
            break
        client.silent(0.2)
    assert seconds_since(start) < patient(6)


@pytest.mark.case("ST-80")
def test_tiny_chunks_do_not_hold_everybody_up(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    body = b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n"
    upstream.serve(lambda connection, received: connection.send(body if received.target == "/tiny" else _PLAIN))
    slow = gateway.send(target="/tiny")
    upstream.wait_requests()
    start = time.monotonic()
    assert gateway.ask(target="/plain").status == 200
    assert seconds_since(start) < patient(0.8)
    answer = slow.read_response(timeout=20)
    assert (answer.complete, len(answer.body)) == (True, 200_000)


_PLAIN = response(200, {}, b"plain")


@pytest.mark.case("SL-82")
def test_a_connection_that_was_held_back_goes_on_when_it_reads(
    gateway: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    upstream.serve(response(200, {}, b"x" * 30_000))
    client: RawClient = gateway.connect(receive_buffer=4096)
    client.send(gateway.request() * 300)
    got = [client.read_response(timeout=10) for _ in range(300)]
    assert all(answer.complete and len(answer.body) == 30_000 for answer in got)


@pytest.mark.case("WS-87")
def test_what_a_target_sent_before_its_end_arrives_at_a_client_that_had_ended_first(
    gateway: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    size = 24 * MIB

    def switch(connection: UpstreamConnection, _: Received) -> None:
        connection.send(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n")
        assert connection.wait_end(5) == "fin"
        connection.send(b"d" * size, timeout=20)
        connection.close()

    upstream.serve(switch)
    client = gateway.connect(receive_buffer=65536)
    client.send(gateway.request(headers={"Connection": "Upgrade", "Upgrade": "foo"}))
    assert client.start_response().status == 101
    client.half_close()
    # Read slowly, so that the target is paused to its last bytes: both ways are shut then, but not empty.
    got = 0
    while piece := client.read_some(timeout=10):
        got += len(piece)
        time.sleep(0.002)
    assert (got, client.end) == (size, "fin")
