"""Near-HTTP at both ends of the running gateway: no traceback, no hang, and nothing but framed messages come out.

A short run is part of the suite; ``pytest tests/conformance/test_fuzz.py -m long --fuzz-seconds 900`` is a long one of
both ends, half of the time each.
What either finds becomes a file of the corpus or a test of its family.
"""

import contextlib
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support import (
    BadMessageError,
    RawClient,
    Received,
    ScriptedUpstream,
    UpstreamConnection,
    response,
    wait_until,
)
from tests.support.door import WireUnderTest
from tests.support.messages import chunked, request_size, split_requests
from tests.support.wire import PeerGoneError

FUZZ = settings(
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
SHORT = settings(FUZZ, max_examples=150)
ROUND = settings(FUZZ, max_examples=1000)

HOST = b"Host: wire.test"


def often(usual: bytes, *odd: bytes) -> st.SearchStrategy[bytes]:
    """Nearly always the usual bytes: a message of many parts shall have one or two odd ones, or none."""
    return st.sampled_from([usual] * 25 * len(odd) + list(odd))


END = often(b"\r\n", b"\n", b"\r", b"\r\r\n", b"\r\n ", b"\r\n\t", b"\0\r\n", b"")
METHOD = often(b"GET", b"POST", b"POST", b"PUT", b"FOO", b"get", b"G(T", b"", b"CONNECT", b"OPTIONS", b"TRACE", b"PRI")
TARGET = often(
    b"/",
    b"/a?b",
    b"*",
    b"//x",
    b"/a b",
    b"/\x7f",
    b"/\xff",
    b"http://wire.test/x",
    b"http://other/x",
    b"x",
    b"",
    b"/a#b",
    b"/%00",
    b"https://wire.test",
    b"/..;/",
    b"wire.test:80",
)
VERSION = often(
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/1.0",
    b"HTTP/1.0",
    b"HTTP/1.10",
    b"HTTP/2.0",
    b"HTTP/1.",
    b"http/1.1",
    b"",
    b"HTTP/1.1 ",
    b"HTTP/0.9",
)
BLANK = often(b" ", b"  ", b"\t", b"", b"\x0b", b"\xa0")
LENGTHS = st.sampled_from(
    [b"5", b"05", b"+5", b"5,5", b"5, 6", b"-1", b"0x5", b"", b"99999999999999999999", b"5 ", b"5\t", b"1_0"]
)
CODINGS = st.sampled_from(
    [
        b"chunked",
        b"Chunked",
        b"chunked, chunked",
        b"gzip, chunked",
        b"identity",
        b"chunked;a",
        b",chunked",
        b"\x0bchunked",
        b"x",
    ]
)
FIELD = st.one_of(
    st.just(HOST),
    LENGTHS.map(lambda value: b"Content-Length: " + value),
    CODINGS.map(lambda value: b"Transfer-Encoding: " + value),
    st.sampled_from(
        [
            b"Connection: close",
            b"Connection: keep-alive",
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Upgrade: h2c",
            b"Connection: content-length",
            b"Connection: transfer-encoding",
            b"Expect: 100-continue",
            b"Expect: x",
            b"TE: trailers",
            b"Trailer: X-A",
            b"Host: b.test",
            b"Host: ",
            b"Host : wire.test",
            b"Content-Length : 5",
            b"Transfer-Encoding : chunked",
            b" folded: x",
            b"no colon",
            b": empty",
            b"X-A: a\x00b",
            b"X-A: a\rb",
            b"X-(A: b",
            b"X-A:\ta\t",
            b"x-a:",
            b"X-A: \xff",
            b"Keep-Alive: 5",
            b"Via: 1.1 x",
            b"Proxy-Connection: close",
            b"content-length: 5",
            b"transfer-encoding:chunked",
        ]
    ),
)
CHUNKS = st.one_of(
    st.just(chunked(b"hello")),
    st.just(chunked(b"hello", b"world", trailers=[("X-T", "1")])),
    st.just(chunked(b"GET /hidden HTTP/1.1\r\nHost: wire.test\r\n\r\n")),
    st.lists(
        st.sampled_from(
            [
                b"5\r\nhello\r\n",
                b"0\r\n",
                b"\r\n",
                b"5\nhello\n",
                b"5;a=b\r\nhello\r\n",
                b"5;a\rb\r\nhello\r\n",
                b"0x5\r\n",
                b" 5\r\n",
                b"5 \r\nhello\r\n",
                b"-1\r\n",
                b"FFFFFFFFFFFFFFFF1\r\n",
                b"5\r\nhelloX\r\n",
                b"00\r\n",
                b"X-T: 1\r\n",
                b"5\r\nhello",
                b"\n",
            ]
        ),
        max_size=5,
    ).map(b"".join),
)
BODY = st.one_of(st.just(b""), st.just(b"hello"), CHUNKS, st.just(b"GET /hidden HTTP/1.1\r\nHost: wire.test\r\n\r\n"))


FRAMED = st.one_of(
    st.just((b"", b"")),
    st.just((b"Content-Length: 5", b"hello")),
    CHUNKS.map(lambda body: (b"Transfer-Encoding: chunked", body)),
    st.tuples(FIELD, BODY),
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request that is nearly one."""
    framing, body = draw(FRAMED)
    lines = [draw(METHOD) + draw(BLANK) + draw(TARGET) + draw(BLANK) + draw(VERSION)]
    lines += [HOST] * draw(st.sampled_from([1] * 20 + [0, 2]))
    lines += [framing] * bool(framing)
    lines += [draw(FIELD)] * draw(st.sampled_from([0, 0, 0, 1]))
    return b"".join(line + draw(END) for line in lines) + draw(END) + body


@st.composite
def mutated(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """The bytes with, now and then, one of them replaced, removed or doubled."""
    data = draw(messages)
    if not data or draw(st.integers(0, 5)):
        return data
    at = draw(st.integers(0, len(data) - 1))
    new = draw(st.sampled_from([b"", data[at : at + 1] * 2, b"\0", b"\r", b"\n", b" ", b":", b"\xff", b"\x7f"]))
    return data[:at] + new + data[at + 1 :]


@st.composite
def cut(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> list[bytes]:
    """The bytes in up to three packets."""
    data = draw(messages)
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=2)))
    return [piece for piece in (data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)) if piece]


CONVERSATIONS = cut(st.lists(mutated(requests()), min_size=1, max_size=3).map(b"".join))


def reference(data: bytes) -> list[tuple[bytes, bytes]]:
    """Method and target of the requests that a strict reader finds, up to the first thing it does not accept."""
    found: list[tuple[bytes, bytes]] = []
    while b"\r\n\r\n" in (data := data.lstrip(b"\r\n")):
        try:
            size = request_size(data)
        except BadMessageError:
            break
        method, target, _ = data.split(b"\r\n", 1)[0].split(b" ")
        found.append((method, target))
        data = data[size:]
    return found


def talk(client: RawClient, pieces: list[bytes]) -> None:
    """Send the pieces and read until nothing more comes for a moment, or the connection ends."""
    with contextlib.suppress(OSError):
        for piece in pieces:
            client.send(piece)
            time.sleep(0.0005)  # a packet of its own, more often than not
    with contextlib.suppress(TimeoutError):
        while client.fill(0.02):
            pass


def judge_answers(client: RawClient) -> None:
    """Assert that what came is a sequence of well-formed responses, the last one perhaps incomplete."""
    with contextlib.suppress(PeerGoneError, TimeoutError):
        while client.buffer:
            incoming = client.start_response(timeout=0.01)
            if incoming.status == 101:
                return
            incoming.finish(timeout=0.01)


def hostile_client(wire: WireUnderTest, upstream: ScriptedUpstream, pieces: list[bytes]) -> None:
    """One conversation, judged; a failure is confirmed alone, so that no earlier conversation's end is blamed on it."""
    try:
        judge_conversation(wire, upstream, pieces)
    except AssertionError:
        start_afresh(wire, upstream)
        judge_conversation(wire, upstream, pieces)
    finally:
        upstream.forget()
        upstream.prune()


def judge_conversation(wire: WireUnderTest, upstream: ScriptedUpstream, pieces: list[bytes]) -> None:
    with RawClient(wire.port) as client:
        talk(client, pieces)
        judge_answers(client)
    for connection in upstream.connections:
        split_requests(bytes(connection.received))
    sent = b"".join(pieces)
    whole = upstream.complete_requests  # of a body that turned out bad, the head may have gone before
    came = [received.method.encode("latin-1") for received in whole]
    allowed = reference(sent)
    assert came == [method for method, _ in allowed][: len(came)], (
        f"{whole} from {sent!r}, in which a strict reader finds {allowed}"
    )


def start_afresh(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    """End every connection upstream, and wait until the gateway has seen that."""
    for connection in upstream.connections:
        connection.wake()
    wait_until(lambda: all(connection.end for connection in upstream.connections), 2)
    upstream.prune()
    with contextlib.suppress(OSError), RawClient(wire.port) as client:
        client.send(wire.request())
        client.read_response()
    upstream.forget()


@pytest.fixture
def fuzzed(wire: WireUnderTest, upstream: ScriptedUpstream) -> Iterator[WireUnderTest]:
    yield wire
    assert wire.ask(target="/sentinel").status == 200, "it still serves"


@pytest.mark.case("FR-99")
def test_no_near_request_gets_the_wire_out_of_step(fuzzed: WireUnderTest, upstream: ScriptedUpstream) -> None:
    given(CONVERSATIONS)(SHORT(lambda pieces: hostile_client(fuzzed, upstream, pieces)))()


STATUS = often(
    b"HTTP/1.1 200 OK",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1 204 No",
    b"HTTP/1.1 304 Not",
    b"HTTP/1.1 100 Continue",
    b"HTTP/1.1 103 Hints",
    b"HTTP/1.1 101 Switching",
    b"HTTP/1.1 99 x",
    b"HTTP/1.1 1000 x",
    b"HTTP/1.1 200",
    b"HTTP/1.1  200 OK",
    b"ICY 200 OK",
    b"",
    b"HTTP/2 200",
    b"HTTP/1.1 2\x000 OK",
    b"HTTP/1.1 200 \xff\x00",
)
ANSWER_FIELD = st.one_of(
    LENGTHS.map(lambda value: b"Content-Length: " + value),
    CODINGS.map(lambda value: b"Transfer-Encoding: " + value),
    st.sampled_from(
        [
            b"Connection: close",
            b"Connection: keep-alive",
            b"Connection: content-length",
            b"Upgrade: websocket",
            b"X-A: a\x00b",
            b"X-A : b",
            b"no colon",
            b": x",
            b"X-A: a\rb",
            b" folded",
            b"Set-Cookie: a",
            b"Set-Cookie: b",
            b"Trailer: X-T",
            b"X-A: \xff",
            b"Content-Length: 5",
            b"Content-Length: 0",
            b"Transfer-Encoding: chunked",
        ]
    ),
)
ANSWER_BODY = st.one_of(st.just(b""), st.just(b"hello"), CHUNKS, st.just(response(200, {"X-Evil": "1"}, b"evil")))


ANSWER_FRAMED = st.one_of(
    st.just((b"Content-Length: 5", b"hello")),
    st.just((b"Content-Length: 5", b"hello" + response(200, {"X-Evil": "1"}, b"evil"))),
    CHUNKS.map(lambda body: (b"Transfer-Encoding: chunked", body)),
    st.tuples(ANSWER_FIELD, ANSWER_BODY),
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """One response that is nearly one."""
    framing, body = draw(ANSWER_FRAMED)
    lines = [draw(STATUS), framing] + [draw(ANSWER_FIELD)] * draw(st.sampled_from([0, 0, 0, 1]))
    return b"".join(line + draw(END) for line in lines) + draw(END) + body


@st.composite
def replies(draw: st.DrawFn) -> tuple[list[bytes], str]:
    """What an upstream says in how many packets, and what it does then."""
    said = draw(cut(st.lists(mutated(answers()), min_size=1, max_size=2).map(b"".join)))
    return said, draw(st.sampled_from(["keep", "close", "reset"]))


def hostile_upstream(wire: WireUnderTest, upstream: ScriptedUpstream, reply: tuple[list[bytes], str]) -> None:
    said, then = reply

    def script(connection: UpstreamConnection, received: Received) -> None:
        if received.target != "/hostile":
            connection.respond(200, received.target.encode())
            return
        for piece in said:
            connection.send(piece)
            time.sleep(0.0005)  # a packet of its own, more often than not
        if then != "keep":
            getattr(connection, then)()

    upstream.serve(script)
    with RawClient(wire.port) as client:
        client.send(wire.request(target="/hostile"))
        with contextlib.suppress(TimeoutError):
            while client.fill(0.03):
                pass
        judge_answers(client)
    for number in range(2):
        with RawClient(wire.port) as client:  # closed at once; `wire.ask` closes at the end of the test
            client.send(wire.request(target=f"/own{number}"))
            answer = client.read_response()
        assert (answer.status, answer.body) == (200, b"/own%d" % number), f"{answer} after {said!r}, {then}"
    upstream.forget()
    upstream.prune()


@pytest.mark.case("UF-99")
def test_no_near_response_reaches_another_request(fuzzed: WireUnderTest, upstream: ScriptedUpstream) -> None:
    given(replies())(SHORT(lambda reply: hostile_upstream(fuzzed, upstream, reply)))()


def rounds(config: pytest.Config) -> Iterator[None]:
    """Rounds of examples until half of the fuzzing time is over."""
    deadline = time.monotonic() + config.getoption("--fuzz-seconds") / 2
    while time.monotonic() < deadline:
        yield


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.case("FR-99")
def test_no_near_request_gets_the_wire_out_of_step_for_long(
    fuzzed: WireUnderTest, upstream: ScriptedUpstream, request: pytest.FixtureRequest
) -> None:
    for _ in rounds(request.config):
        given(CONVERSATIONS)(ROUND(lambda pieces: hostile_client(fuzzed, upstream, pieces)))()


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.case("UF-99")
def test_no_near_response_reaches_another_request_for_long(
    fuzzed: WireUnderTest, upstream: ScriptedUpstream, request: pytest.FixtureRequest
) -> None:
    for _ in rounds(request.config):
        given(replies())(ROUND(lambda reply: hostile_upstream(fuzzed, upstream, reply)))()
