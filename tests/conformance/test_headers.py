"""Header fidelity: order, case, duplicates, bytes; nothing merged, nothing remembered."""

import time
from email.utils import parsedate_to_datetime

import pytest

from tests.support import ScriptedUpstream, response
from tests.support.door import WireUnderTest


@pytest.mark.case("HD-01")
def test_order_case_and_duplicates_of_the_answer_stay(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    sent = [("X-Zulu", "1"), ("x-alpha", "2"), ("X-UPPER", "3"), ("X-Zulu", "4"), ("date", "now"), ("SERVER", "s")]
    upstream.serve(response(200, sent, b"x"))
    came = [line for line in gateway.ask().headers if line[0].lower() not in {"x-request-id", "via", "content-length"}]
    assert came == sent


@pytest.mark.case("HD-02")
def test_each_set_cookie_stays_a_line_of_its_own(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    cookies = ["a=1; Path=/", "b=2, with comma; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "a=3"]
    upstream.serve(response(200, [("Set-Cookie", cookie) for cookie in cookies], b""))
    assert wire.ask().headers.all("set-cookie") == cookies


@pytest.mark.case("HD-03")
def test_duplicate_request_fields_stay_apart(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    wire.ask(headers=[("X-A", "1"), ("X-B", "2"), ("X-A", "3"), ("Cookie", "a=1"), ("Cookie", "b=2")])
    assert upstream.only.headers.all("x-a") == ["1", "3"]
    assert upstream.only.headers.all("cookie") == ["a=1", "b=2"]


@pytest.mark.case("HD-04")
def test_empty_values_stay_empty(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(200, {"X-Empty": "", "X-After": "1"}, b""))
    answer = wire.ask(headers={"X-Void": "", "X-Behind": "1"})
    assert (upstream.only.headers["X-Void"], upstream.only.headers["X-Behind"]) == ("", "1")
    assert (answer.headers["X-Empty"], answer.headers["X-After"]) == ("", "1")


@pytest.mark.case("HD-05")
@pytest.mark.parametrize("value", ["caf\xe9", "caf\xc3\xa9", "\xff\xfe"], ids=["Latin-1", "UTF-8", "neither"])
def test_bytes_beyond_ascii_are_passed_or_refused(wire: WireUnderTest, upstream: ScriptedUpstream, value: str) -> None:
    upstream.serve(lambda connection, received: connection.respond(200, X_Back=received.headers.get("x-there")))
    answer = wire.ask(headers={"X-There": value})
    if answer.status == 200:
        assert upstream.only.headers["X-There"] == value
        assert answer.headers["X-Back"] == value
    else:
        assert answer.status in {400, 502}


@pytest.mark.case("HD-06")
def test_date_and_server_are_the_upstreams_and_only_once(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    date = "Tue, 15 Nov 1994 08:12:31 GMT"
    upstream.serve(
        response(200, {"Date": date, "Server": "inner", "ETag": '"x"', "Last-Modified": date, "X-Y": "z"}, b"")
    )
    answer = wire.ask()
    assert answer.headers["Date"] == date
    assert len(answer.headers.all("server")) == 1
    assert (answer.headers["ETag"], answer.headers["Last-Modified"], answer.headers["X-Y"]) == ('"x"', date, "z")


@pytest.mark.case("HD-07")
def test_one_users_cookie_is_never_anothers(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(200, {"Set-Cookie": "sid=A; Path=/"}, b""))
    for _ in range(3):
        assert wire.ask().status == 200
    assert not [received for received in upstream.requests if "Cookie" in received.headers]


@pytest.mark.case("HD-08")
def test_a_proxy_field_is_dropped_and_no_proxy_is_used(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    """The environment of the gateway names proxies that nothing listens on."""
    assert wire.ask(headers={"Proxy": "http://evil.test"}).status == 200
    assert "Authorization" not in upstream.only.headers
    assert "Proxy" not in upstream.only.headers


@pytest.mark.case("HD-10")
@pytest.mark.parametrize("line", ["X-A:a", "X-A:  a  ", "X-A:\ta\t", "X-A: \t a \t "])
def test_blanks_around_a_value_are_no_part_of_it(wire: WireUnderTest, upstream: ScriptedUpstream, line: str) -> None:
    answer = wire.exchange(wire.request()[:-2] + line.encode() + b"\r\n\r\n")
    assert answer.status == 200
    head = upstream.only.head.lower()
    assert b"\r\nx-a: a\r\n" in head or b"\r\nx-a:a\r\n" in head


@pytest.mark.case("HD-10")
def test_blanks_around_a_value_of_the_answer(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(b"HTTP/1.1 200 Fine\r\nX-A:a\r\nX-B: \tb\t \r\nContent-Length: 0 \r\n\r\n")
    answer = wire.ask()
    assert (answer.status, answer.headers["X-A"], answer.headers["X-B"]) == (200, "a", "b")


@pytest.mark.case("HD-11")
def test_a_value_with_commas_and_quotes_is_not_taken_apart(wire: WireUnderTest, upstream: ScriptedUpstream) -> None:
    value = 'a, "b, c" ;d="e\\"f",, g'
    wire.ask(headers={"X-List": value})
    assert upstream.only.headers["X-List"] == value


@pytest.mark.case("HD-12")
@pytest.mark.parametrize("name", ["Authorization", "Content-Type", "If-None-Match"])
def test_duplicate_singletons_are_never_merged(wire: WireUnderTest, upstream: ScriptedUpstream, name: str) -> None:
    answer = wire.ask(headers=[(name, '"1"'), (name, '"2"')])
    if answer.status == 200:
        assert upstream.only.headers.all(name) == ['"1"', '"2"']
    else:
        assert answer.status == 400


@pytest.mark.case("HD-80")
def test_an_answer_without_a_date_is_given_one(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(b"HTTP/1.1 200 Fine\r\nContent-Length: 1\r\n\r\nx")
    dates = gateway.ask().headers.all("date")
    assert len(dates) == 1
    assert abs(parsedate_to_datetime(dates[0]).timestamp() - time.time()) < 3


@pytest.mark.case("HH-81")
@pytest.mark.parametrize("name", ["User-Agent", "Referer", "traceparent"])
def test_what_the_gateway_only_looks_at_can_be_nominated(
    gateway: WireUnderTest, upstream: ScriptedUpstream, name: str
) -> None:
    gateway.ask(headers={"Connection": name, name: "x"})
    assert not upstream.only.headers.all(name)
