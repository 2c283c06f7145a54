"""What is told of TLS targets alone; all the rest of what a target may do is tried over TLS by the other modules."""

import time

import pytest

from tests.support import RawClient, Received, ScriptedUpstream, UpstreamConnection, response, wait_until
from tests.support.door import WireUnderTest

MIB = 1 << 20
FRAMINGS = {
    "length": lambda body: response(200, {"Connection": "close"}, body),
    "chunked": lambda body: response(200, {"Connection": "close"}, chunks=[body[:MIB], body[MIB:]]),
    "until close": lambda body: b"HTTP/1.1 200 Fine\r\nConnection: close\r\n\r\n" + body,
}


def read_slowly(client: RawClient) -> None:
    while client.fill():
        time.sleep(0.002)  # so that the target is held back, and has long gone when its last bytes are read


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("size", [MIB // 2 + 1, 3 * MIB, 9 * MIB + 77])
def test_the_end_of_an_answer_reaches_a_client_that_reads_slowly(
    gateway: WireUnderTest, upstream: ScriptedUpstream, framing: str, size: int
) -> None:
    upstream.serve(
        lambda connection, received: (connection.send(FRAMINGS[framing](b"x" * size), timeout=20), connection.close())
    )
    client = gateway.connect(receive_buffer=16384)
    client.send(gateway.request(headers={"Connection": "close"}))
    time.sleep(0.2)  # the client does nothing at first: whatever can be taken in on the way is
    read_slowly(client)
    answer = client.read_response(timeout=10)
    assert (answer.complete, len(answer.body)) == (True, size)


@pytest.mark.parametrize("size", [MIB // 2 + 1, 3 * MIB])
def test_an_answer_that_is_cut_looks_cut_to_a_client_that_reads_slowly(
    gateway: WireUnderTest, upstream: ScriptedUpstream, size: int
) -> None:
    upstream.serve(
        lambda connection, received: (
            connection.send(FRAMINGS["until close"](b"x" * size), timeout=20),
            connection.cut(),
        )
    )
    client = gateway.connect(receive_buffer=16384)
    client.send(gateway.request(headers={"Connection": "close"}))
    read_slowly(client)
    assert not client.read_response(timeout=10).complete


def test_a_tunnel_delivers_what_its_target_said_last(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    size = 3 * MIB

    def switch(connection: UpstreamConnection, _: Received) -> None:
        connection.send(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n")
        connection.send(b"d" * size, timeout=20)
        connection.close()

    upstream.serve(switch)
    client = gateway.connect(receive_buffer=16384)
    client.send(gateway.request(headers={"Connection": "Upgrade", "Upgrade": "foo"}))
    assert client.start_response().status == 101
    time.sleep(0.2)  # as above
    read_slowly(client)
    assert (len(client.buffer), client.end) == (size, "fin")


@pytest.mark.parametrize("early", [0, 8 * MIB])
def test_the_end_of_a_clients_half_is_said_while_its_target_is_held_back(
    gateway: WireUnderTest, upstream: ScriptedUpstream, early: int
) -> None:
    """A target that answers to the end of what it was sent, as `cat` and `rsync` do."""

    def answer_to_the_end(connection: UpstreamConnection, _: Received) -> None:
        connection.send(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n")
        connection.send(b"e" * early, timeout=20)
        assert connection.read_to_end(20) == b"all of it"
        connection.send(b"and the answer")
        connection.close()

    upstream.serve(answer_to_the_end)
    client = gateway.connect(receive_buffer=16384)
    client.send(gateway.request(headers={"Connection": "Upgrade", "Upgrade": "foo"}))
    assert client.start_response().status == 101
    time.sleep(0.2)  # the client does not read: what the target says stays where it is
    client.send(b"all of it")
    client.half_close()
    assert client.read_to_end(20) == b"e" * early + b"and the answer"
    assert client.end == "fin"


def test_a_target_that_ends_a_tunnel_first_ends_it_at_once(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    def half(connection: UpstreamConnection, _: Received) -> None:
        connection.send(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n")
        connection.half_close()
        connection.hold()

    upstream.serve(half)
    client = gateway.send(headers={"Connection": "Upgrade", "Upgrade": "foo"})
    assert client.start_response().status == 101
    assert client.wait_end(1.5) == "fin"
    wait_until(lambda: upstream.connections[0].end, 1.5, "the end of the target's connection")
