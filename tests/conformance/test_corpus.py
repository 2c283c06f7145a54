"""Every pair of files in `corpus/`: bytes, and what must become of them (see corpus/README.md)."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from tests.support import RawClient, Received, Response, ScriptedUpstream, wait_until
from tests.support.corpus import CORPUS, unescape
from tests.support.door import WireUnderTest
from tests.support.messages import split_requests


@dataclass(frozen=True)
class Expectation:
    """What corpus/README.md describes."""

    case: str
    title: str
    rule: str = ""
    should: bool = False
    refused: tuple[int, ...] = ()
    or_closed: bool = False
    upstream_incomplete: bool = False
    upstream_never: str = ""
    or_one: bool = False
    answers: tuple[int | list[int], ...] = ()
    upstream: tuple[dict[str, Any], ...] = ()
    closed: bool = False
    or_refused: tuple[int, ...] = ()
    interim: tuple[int, ...] = ()


def load(path: Path) -> Expectation:
    """The expectation beside a .http file; unknown keys are mistakes."""
    raw: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    assert raw.keys() <= {field.name for field in fields(Expectation)}, f"unknown key in {path.stem}.json"
    frozen: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    return Expectation(**frozen)


def parameter(path: Path) -> Any:
    """A .http file as a test's parameter."""
    expected = load(path)
    mark = pytest.mark.case(expected.case, should=expected.should)
    return pytest.param(path, id=f"{expected.case} {path.stem}", marks=mark)


@pytest.mark.parametrize("path", [parameter(path) for path in sorted(CORPUS.glob("*.http"))])
def test_corpus(path: Path, wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    expected = load(path)
    client = wire.connect()
    client.send(unescape(path.read_bytes()))
    if expected.refused:
        _judge_refusal(expected, wire, client, upstream)
    else:
        _judge_answers(expected, wire, client, upstream)
    if wire.gateway:
        for connection in upstream.connections:
            split_requests(bytes(connection.received))  # raises if what we sent upstream is not framed


def _judge_refusal(expected: Expectation, wire: WireUnderTest, client: RawClient, upstream: ScriptedUpstream) -> None:
    if expected.or_one and not wire.gateway and _forwarded_once(client, upstream):
        return
    wire.expect_refused(client, expected.refused, or_closed=expected.or_closed, flag=None)
    if expected.upstream_incomplete:
        _nothing_whole(upstream)
    else:
        assert upstream.requests == []
        assert upstream.received == b""
    if expected.upstream_never:
        assert expected.upstream_never.encode("latin-1") not in upstream.received


def _nothing_whole(upstream: ScriptedUpstream) -> None:
    wait_until(lambda: all(received.state != "reading" for received in upstream.requests), 2, "an end of the request")
    assert upstream.complete_requests == []


def _forwarded_once(client: RawClient, upstream: ScriptedUpstream) -> bool:
    """Whether another proxy chose to repair: one request, framed once, and nothing hidden in it became another."""
    answer = client.read_response()
    if answer.status != 200:
        client.buffer[:0] = _as_bytes(answer)
        return False
    received = upstream.requests[0]
    assert received.complete
    framings = received.headers.all("content-length") + received.headers.all("transfer-encoding")
    assert len(framings) <= 1, f"framed twice upstream: {framings}"
    hidden = [other for other in upstream.requests if "/hidden" in other.target]
    # By its own framing what follows is the next request: only a body that one reads and the other does not counts.
    assert not hidden or b"/hidden" not in bytes(received.body), upstream.requests
    return True


def _as_bytes(answer: Response) -> bytes:
    """An answer that was read too early, put back in a form that reads the same."""
    lines = [line for line in answer.headers.lines if line[0].lower() not in {"transfer-encoding", "content-length"}]
    head = "".join(f"{name}: {value}\r\n" for name, value in lines)
    start = f"{answer.version} {answer.status} {answer.reason}\r\n{head}Content-Length: {len(answer.body)}\r\n\r\n"
    return start.encode("latin-1") + answer.body


def _judge_answers(expected: Expectation, wire: WireUnderTest, client: RawClient, upstream: ScriptedUpstream) -> None:
    for number, allowed in enumerate(expected.answers):
        answer = client.read_response()
        if answer.status in expected.or_refused and number == 0:
            assert upstream.requests == []
            return
        assert answer.status in ({allowed} if isinstance(allowed, int) else allowed), answer
        assert answer.complete, answer
        assert {status for status, _ in answer.informational} <= set(expected.interim), answer.informational
        if answer.status >= 400:
            wire.expect_own(answer, answer.status)
    if expected.closed:
        client.expect_end()
    else:
        assert not client.buffer, client
    _judge_upstream(expected, upstream.requests)


def _judge_upstream(expected: Expectation, requests: list[Received]) -> None:
    assert len(requests) == len(expected.upstream), requests
    for received, wanted in zip(requests, expected.upstream, strict=True):
        assert received.complete, received
        assert received.method == wanted.get("method", received.method)
        assert received.target == wanted.get("target", received.target)
        if "body" in wanted:
            assert bytes(received.body) == wanted["body"].encode("latin-1")
        for name, value in wanted.get("headers", {}).items():
            assert received.headers[name] == value
        for name in wanted.get("absent", ()):
            assert name not in received.headers
