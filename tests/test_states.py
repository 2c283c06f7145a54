"""The state machines as tables: what they promise by themselves, and what the connections make of them."""

import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devhost_server.doors import http1_states as client_side
from devhost_server.states import IMPOSSIBLE, diagram, row
from devhost_server.upstream import http1_states as target_side
from tests.benchmarks.inmemory import Loopback

TABLES = [client_side, target_side]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__.split(".")[1])
def test_every_state_can_be_reached_and_left(table: Any) -> None:
    reached, todo = {table.State.IDLE}, [table.State.IDLE]
    while todo:
        state = todo.pop()
        for (old, _), new in table.TRANSITIONS.items():
            if old is state and new not in reached:
                reached.add(new)
                todo.append(new)
    assert reached == set(table.State)
    for state in table.State:
        assert table.TRANSITIONS[state, table.Cue.CLOSE] is table.State.CLOSED
    left = {cue for (old, cue), _ in table.TRANSITIONS.items() if old in (table.State.CLOSED, table.State.TUNNEL)}
    assert left == {table.Cue.CLOSE}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__.split(".")[1])
def test_a_row_knows_no_way_that_is_not_in_the_table(table: Any) -> None:
    for cue in table.Cue:
        for state, new in zip(table.State, row(table.TRANSITIONS, cue), strict=True):
            assert new == table.TRANSITIONS.get((state, cue), IMPOSSIBLE)
            with pytest.raises(IndexError):
                row(table.TRANSITIONS, cue)[IMPOSSIBLE]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__.split(".")[1])
def test_the_picture_has_every_way(table: Any) -> None:
    drawn = diagram(table.TRANSITIONS, table.State.IDLE)
    for (old, cue), new in table.TRANSITIONS.items():
        if cue is not table.Cue.CLOSE:
            assert f"{old.name.lower()} --> {new.name.lower()}: {cue.value}" in drawn


UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: app.localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
# What may come from either end, whole, in pieces, or wrong, and the ends of both connections.
FROM_CLIENT = [
    b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 4\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
    UPGRADE,
    b"bo",
    b"4\r\nbody\r\n",
    b"0\r\n\r\n",
    b"\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
]
FROM_TARGET = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\n",
    SWITCHING,
    b"ok",
    b"2\r\nok\r\n",
    b"0\r\n\r\n",
    b"no HTTP\r\n\r\n",
]
STEPS = st.one_of(
    st.tuples(st.just("client"), st.sampled_from(FROM_CLIENT)),
    st.tuples(st.just("target"), st.sampled_from(FROM_TARGET)),
    st.tuples(st.sampled_from(["client ends", "target ends", "client stops", "client goes on", "turn"]), st.just(b"")),
)


def play(loopback: Loopback, what: str, data: bytes) -> None:
    if what == "turn":
        for _ in range(4):
            loopback.loop.call_soon(loopback.loop.stop)
            loopback.loop.run_forever()
    play_client(loopback, what, data)
    for server in loopback.loop.made:
        if server.caller is None or server.transport.is_closing() or server._state == target_side.State.TUNNEL:
            continue
        if what == "target":
            server.data_received(data)
        elif what == "target ends":
            server.eof_received()


def play_client(loopback: Loopback, what: str, data: bytes) -> None:
    client = loopback.client
    if what == "client" and not loopback.client_transport.closed:
        client.data_received(data)
    elif what == "client ends" and not loopback.client_transport.closed:
        client.eof_received()
    elif what == "client stops":
        client.pause_writing()
    elif what == "client goes on" and client._write_paused:
        client.resume_writing()


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, max_size=14))
def test_whatever_comes_a_connection_goes_only_where_its_table_leads(steps: list[tuple[str, bytes]]) -> None:
    heard: list[Any] = []
    with contextlib.closing(Loopback(log=None)) as loopback:
        loopback.loop.set_exception_handler(lambda _, context: heard.append(context))
        for what, data in steps:
            if loopback.client._state == client_side.State.TUNNEL:
                break
            play(loopback, what, data)
            assert loopback.client._state in set(client_side.State)
            for server in loopback.loop.made:
                assert server._state in set(target_side.State)
    assert heard == []
