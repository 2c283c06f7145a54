"""Compressed bodies are somebody else's: bytes, codings, lengths and validators pass untouched."""

import gzip

import pytest

from tests.support import ScriptedUpstream, response
from tests.support.door import WireUnderTest

ZIPPED = gzip.compress(b"hello " * 1000)


@pytest.mark.case("EN-01")
def test_a_gzipped_answer_is_passed_as_it_is(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(200, {"Content-Encoding": "gzip", "ETag": '"abc"', "Vary": "Accept-Encoding"}, ZIPPED))
    answer = wire.ask(headers={"Accept-Encoding": "gzip"})
    assert answer.body == ZIPPED
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Content-Length"] == str(len(ZIPPED))
    assert answer.headers["ETag"] == '"abc"'
    assert upstream.only.headers["Accept-Encoding"] == "gzip"


@pytest.mark.case("EN-02")
def test_no_accept_encoding_is_invented(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    wire.ask()
    assert "Accept-Encoding" not in upstream.only.headers


@pytest.mark.case("EN-03")
@pytest.mark.parametrize("coding", ["br", "zstd", "foo"])
def test_any_coding_is_passed_unread(wire: WireUnderTest, upstream: ScriptedUpstream, coding: str) -> None:
    upstream.serve(response(200, {"Content-Encoding": coding}, bytes(range(256))))
    answer = wire.ask(headers={"Accept-Encoding": coding})
    assert (answer.body, answer.headers["Content-Encoding"]) == (bytes(range(256)), coding)


@pytest.mark.case("EN-04")
@pytest.mark.parametrize("body", [b"not gzip at all", ZIPPED[:20]], ids=["not gzip", "truncated"])
def test_a_false_gzip_is_no_error_of_ours(wire: WireUnderTest, upstream: ScriptedUpstream, body: bytes) -> None:
    upstream.serve(response(200, {"Content-Encoding": "gzip"}, body))
    answer = wire.ask()
    assert (answer.status, answer.body) == (200, body)


@pytest.mark.case("EN-05")
def test_a_gzipped_upload_is_passed_as_it_is(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert wire.ask("POST", headers={"Content-Encoding": "gzip"}, body=ZIPPED).status == 200
    assert bytes(upstream.only.body) == ZIPPED
    assert upstream.only.headers["Content-Encoding"] == "gzip"
