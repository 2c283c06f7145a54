"""Answers without a body, ranges and conditions: passed, never computed."""

import pytest

from tests.support import ScriptedUpstream, response
from tests.support.door import WireUnderTest


@pytest.mark.case("NB-01")
def test_a_304_with_a_length_keeps_the_connection(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(b'HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: "x"\r\n\r\n')
    client = wire.connect()
    for _ in range(3):
        client.send(wire.request(headers={"If-None-Match": '"x"'}))
        answer = client.read_response()
        assert (answer.status, answer.headers["ETag"], answer.body) == (304, '"x"', b"")
    assert upstream.requests[0].headers["If-None-Match"] == '"x"'


@pytest.mark.case("NB-02")
def test_a_204_has_neither_body_nor_framing(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(b"HTTP/1.1 204 Nothing\r\nX-A: 1\r\n\r\n")
    client = wire.connect()
    for _ in range(2):
        client.send(wire.request("DELETE"))
        answer = client.read_response("DELETE")
        assert (answer.status, answer.body, answer.headers["X-A"]) == (204, b"", "1")
        assert client.silent(0.05)


@pytest.mark.case("NB-02")
@pytest.mark.parametrize("line", ["Content-Length: 0", "Transfer-Encoding: chunked"])
def test_a_204_with_framing_is_mended_or_refused(wire: WireUnderTest, upstream: ScriptedUpstream, line: str) -> None:
    upstream.serve(f"HTTP/1.1 204 Nothing\r\n{line}\r\n\r\n".encode())
    client = wire.connect()
    for _ in range(2):
        client.send(wire.request())
        answer = client.read_response()
        assert answer.status in {204, 502}
        assert client.silent(0.05)


@pytest.mark.case("NB-03")
def test_a_range_and_its_part_are_passed(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(206, {"Content-Range": "bytes 2-4/10"}, b"cde"))
    answer = wire.ask(headers={"Range": "bytes=2-4"})
    assert (answer.status, answer.headers["Content-Range"], answer.body) == (206, "bytes 2-4/10", b"cde")
    assert upstream.only.headers["Range"] == "bytes=2-4"


@pytest.mark.case("NB-04")
def test_several_parts_are_passed(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    body = b"--x\r\nContent-Range: bytes 0-0/2\r\n\r\na\r\n--x\r\nContent-Range: bytes 1-1/2\r\n\r\nb\r\n--x--\r\n"
    upstream.serve(response(206, {"Content-Type": "multipart/byteranges; boundary=x"}, body))
    answer = wire.ask(headers={"Range": "bytes=0-0,1-1"})
    assert (answer.status, answer.body) == (206, body)
    assert answer.headers["Content-Type"] == "multipart/byteranges; boundary=x"


@pytest.mark.case("NB-05")
def test_an_unsatisfiable_range_is_passed(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(416, {"Content-Range": "bytes */10"}, b""))
    answer = wire.ask(headers={"Range": "bytes=20-"})
    assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */10")


@pytest.mark.case("NB-06")
@pytest.mark.parametrize("status", [206, 304, 412])
def test_conditions_and_their_answers_are_passed(wire: WireUnderTest, upstream: ScriptedUpstream, status: int) -> None:
    upstream.serve(response(status, {"ETag": '"x"'}, None if status == 304 else b""))
    conditions = {"If-Range": '"x"', "If-Modified-Since": "Tue, 15 Nov 1994 08:12:31 GMT", "If-Match": '"y", W/"z"'}
    assert wire.ask(headers=conditions).status == status
    for name, value in conditions.items():
        assert upstream.only.headers[name] == value


@pytest.mark.case("NB-07")
def test_a_205_has_no_body(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(205, (), b""))
    client = wire.send("POST", body=b"x")
    answer = client.read_response()
    assert (answer.status, answer.body) == (205, b"")
    client.send(wire.request())
    assert client.read_response().status == 205


@pytest.mark.case("NB-08")
def test_an_answer_to_head_that_says_chunked_does_not_hang(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n")
    client = wire.connect()
    for _ in range(2):
        client.send(wire.request("HEAD"))
        answer = client.read_response("HEAD")
        assert (answer.status, answer.headers["X-A"], answer.body) == (200, "1", b"")
        assert client.silent(0.05)
