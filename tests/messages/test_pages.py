"""What a page and a problem document say, and what they never let through."""

from __future__ import annotations

import html
import re
import string
import time
from dataclasses import fields, replace
from html.parser import HTMLParser

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost_server import failures
from devhost_server.failures import FLAGS, Failure
from devhost_server.messages.pages import (
    HTML,
    MAX_DETAIL,
    MAX_TEXT,
    MAX_TRIED,
    POLICY,
    PROBLEM,
    Facts,
    neutral,
    prefers_html,
    presentable,
    render,
)
from devhost_server.upstream.pool import _ADVICE

BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"

REFUSED = Facts(
    status=502,
    reason="Bad Gateway",
    flag="UF",
    error="connection_refused",
    title="The target refuses connections",
    detail="Nothing listens on 127.0.0.1:8000; start the service, or correct the address in the route.",
    request_id="4f1c2a9e7b3d4c50a1b2c3d4e5f60718",
    method="GET",
    host="api.localhost:7777",
    target="/v1/users?page=2",
    route="api",
    owner="team-api",
    upstream="api",
    target_addr="127.0.0.1:8000",
    tried=("127.0.0.1:8000: connection refused after 1 ms", "127.0.0.1:8001: connection refused after 2 ms"),
    since="2026-11-21T06:38:00.000Z",
    instance="9a3f1c",
)


def page(facts: Facts) -> str:
    content_type, body = render(facts, b"text/html")
    assert content_type == HTML
    return body.decode()


def problem(facts: Facts) -> dict[str, object]:
    content_type, body = render(facts, None)
    assert content_type == PROBLEM
    document = orjson.loads(body)
    assert isinstance(document, dict)
    return document


# --- what to do about it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("advice", "said"),
    [
        ("waiting", "Read the log of the service"),
        ("uploads", "Clients are still sending"),
        ("answers", "text/event-stream"),
        ("owned", "NTLM or Negotiate"),
        ("connecting", "whether the target accepts any"),
        ("gateway full", "server.limits.connections"),
        ("client full", "in_flight_per_client"),
        ("bodies full", "buffer_body"),
        ("out of ports", "ip_local_port_range"),
        ("", "Try again in a moment"),
    ],
)
def test_the_advice_about_what_is_full_is_about_what_fills_it(advice: str, said: str) -> None:
    shown = page(replace(REFUSED, flag="UO", error="connection_limit_reached", advice=advice))
    assert said in shown
    assert ("max_connections" in shown) is (advice not in {"connecting", *OTHERWISE_FULL})


OTHERWISE_FULL = {
    failure.advice for failure in vars(failures).values() if isinstance(failure, Failure) and failure.advice
}


def test_every_key_of_advice_has_its_advice() -> None:
    plain = page(replace(REFUSED, flag="UO", error="connection_limit_reached"))
    assert len(OTHERWISE_FULL) == 4
    for advice in {*OTHERWISE_FULL, *_ADVICE.values()}:
        assert page(replace(REFUSED, flag="UO", error="connection_limit_reached", advice=advice)) != plain


# --- who gets which -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "accept",
    [
        BROWSER,
        b"text/html",
        b"TEXT/HTML; Charset=UTF-8",
        b"text/html, */*",
        b"text/*",
        b"application/json;q=0.5, text/html;q=0.501",
        b"application/json;q=0, */*;q=0, text/*;q=0.1",
        b'text/html;charset="utf-8", application/json;q=0.9',
        b"image/png, text/html;q=0.1",
    ],
)
def test_who_likes_html_better_gets_the_page(accept: bytes) -> None:
    assert prefers_html(accept)
    assert render(REFUSED, accept)[0] == HTML


@pytest.mark.parametrize(
    "accept",
    [
        None,
        b"",
        b"*/*",
        b"application/json",
        b"application/json, text/plain, */*",
        b"application/problem+json, text/html",
        b"text/html;q=0, */*",
        b"text/html;q=0",
        b"text/html;q=0.5, application/json;q=0.6",
        b"text/html, application/json",
        b"application/*, text/*;q=0.9",
        b"image/avif,image/webp,*/*;q=0.8",
        b"text/html;q=2",
        b"text/html;q=0.1234",
        b"text/html;q=x",
        b"text/html;level=1",
        b"text/html;charset=latin-1",
        b'"text/html',
        b"text/html/x, /, text/, html",
        b"text/htmlx",
        b"\xff\x00;;;==,,,",
    ],
)
def test_everybody_else_gets_the_problem_document(accept: bytes | None) -> None:
    assert not prefers_html(accept)
    assert render(REFUSED, accept)[0] == PROBLEM


@given(st.binary(max_size=300))
def test_any_accept_is_survived(accept: bytes) -> None:
    prefers_html(accept)


@given(st.lists(st.tuples(st.sampled_from(["text/html", "application/json", "*/*"]), st.integers(0, 1000))))
def test_the_order_of_ranges_does_not_matter(ranges: list[tuple[str, int]]) -> None:
    named = [f"{name};q={q / 1000:.3f}".encode() for name, q in dict(ranges).items()]
    assert prefers_html(b", ".join(named)) == prefers_html(b" ,,".join(reversed(named)))


# --- what is told ---------------------------------------------------------------------------------------------------


def test_the_problem_document_has_every_fact_under_the_name_of_the_access_log() -> None:
    assert problem(REFUSED) == {
        "type": "about:blank",
        "title": "The target refuses connections",
        "status": 502,
        "detail": "Nothing listens on 127.0.0.1:8000; start the service, or correct the address in the route.",
        "instance": "9a3f1c",
        "flag": "UF",
        "error": "connection_refused",
        "request_id": "4f1c2a9e7b3d4c50a1b2c3d4e5f60718",
        "method": "GET",
        "host": "api.localhost:7777",
        "target": "/v1/users?page=2",
        "route": "api",
        "owner": "team-api",
        "upstream": "api",
        "target_addr": "127.0.0.1:8000",
        "tried": ["127.0.0.1:8000: connection refused after 1 ms", "127.0.0.1:8001: connection refused after 2 ms"],
        "since": "2026-11-21T06:38:00.000Z",
    }


def test_the_page_tells_every_fact() -> None:
    text = page(REFUSED)
    for value in (REFUSED.reason, REFUSED.title, REFUSED.detail, REFUSED.since, *REFUSED.tried):
        assert value is not None
        assert html.escape(value) in text
    for row in ("api.localhost:7777/v1/users?page=2", "team-api", "127.0.0.1:8000", REFUSED.request_id, "UF"):
        assert html.escape(row) in text


def test_a_fact_that_is_not_known_has_no_row() -> None:
    unknown = replace(
        REFUSED, route=None, owner=None, upstream=None, target_addr=None, tried=(), since=None, flag="NR", error="x"
    )
    text = page(unknown)
    for word in ("<dt>Route", "<dt>Owner", "<dt>Upstream", "<dt>Target", "Failing since", "What was tried", "None"):
        assert word not in text
    assert problem(unknown)["route"] is None


@pytest.mark.parametrize(
    ("flag", "states"),
    [("BR", "bad idle idle"), ("NR", "good bad idle"), ("UF", "good good bad"), ("DR", "good bad idle")],
)
def test_the_station_that_failed_is_marked(flag: str, states: str) -> None:
    assert re.findall(r'<li class="(\w+)"><b>', page(replace(REFUSED, flag=flag))) == states.split()


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag != "DC"])  # nobody is left to read a page
def test_every_flag_of_the_table_comes_with_a_step_to_try(flag: str) -> None:
    silent = replace(REFUSED, flag=flag, error="-", owner=None, target_addr=None, request_id="?")
    assert "What to try next" in page(silent)


@pytest.mark.parametrize(
    ("target_addr", "offered"),
    [("127.0.0.1:8000", True), ("[::1]:8000", True), ("a.test:80", True), ("/run/x.sock", False), ("$(id):80", False)],
)
def test_a_command_is_offered_only_where_it_can_be_pasted(target_addr: str, offered: bool) -> None:
    assert ("curl -v http://" in page(replace(REFUSED, target_addr=target_addr))) is offered


@pytest.mark.parametrize("request_id", ["a; rm -rf /", "$(id)", "-`x`", "a\nb"])
def test_a_request_id_that_a_shell_would_read_is_not_put_into_a_command(request_id: str) -> None:
    assert "<code>grep" not in page(replace(REFUSED, request_id=request_id))


# --- what is never let through --------------------------------------------------------------------------------------


class Outline(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def outline(text: str) -> Outline:
    parsed = Outline()
    parsed.feed(text)
    parsed.close()
    return parsed


# Surrogates are what `surrogateescape` makes of bytes outside UTF-8; hypothesis leaves them out unless told.
ANY_TEXT = st.text(st.characters(codec=None), max_size=60) | st.text("<>&\"'/=`{}%\\" + string.ascii_letters)
ANY_FACTS = st.builds(
    Facts,
    status=st.integers(400, 599),
    reason=ANY_TEXT,
    flag=st.sampled_from(FLAGS) | ANY_TEXT,
    error=ANY_TEXT,
    title=ANY_TEXT,
    detail=ANY_TEXT,
    request_id=ANY_TEXT,
    method=ANY_TEXT,
    host=ANY_TEXT,
    target=ANY_TEXT,
    route=st.none() | ANY_TEXT,
    owner=st.none() | ANY_TEXT,
    upstream=st.none() | ANY_TEXT,
    target_addr=st.none() | ANY_TEXT,
    tried=st.lists(ANY_TEXT, max_size=12).map(tuple),
    since=st.none() | ANY_TEXT,
    instance=ANY_TEXT,
)


def harmless(facts: Facts) -> Facts:
    """The same facts with a letter in place of each text."""
    known = {field.name: getattr(facts, field.name) for field in fields(facts)}
    letters = {name: "x" for name, value in known.items() if isinstance(value, str) and value and name != "flag"}
    return replace(facts, **letters, tried=("x",) * len(facts.tried))  # type: ignore[arg-type]


def before_the_steps(facts: Facts) -> Outline:
    """The page up to the steps to try: those differ with what can be pasted into a shell."""
    return outline(re.split(r'<section aria-labelledby="next"|<footer', page(facts))[0])


@given(ANY_FACTS)
def test_no_fact_becomes_markup(facts: Facts) -> None:
    rendered, expected = before_the_steps(facts), before_the_steps(harmless(facts))
    assert rendered.tags == expected.tags
    assert [name for name, _ in rendered.attributes] == [name for name, _ in expected.attributes]


@given(ANY_FACTS)
def test_every_less_than_sign_of_the_input_is_escaped(facts: Facts) -> None:
    marked = replace(facts, title="<t>", target="/<u>", host="<h>", tried=("<w>",), owner="<o>", since='"><s>')
    text = page(marked)
    for tag in "tuhwo":
        assert f"<{tag}>" not in text
        assert f"&lt;{tag}&gt;" in text
    assert '"><s>' not in text


@given(ANY_FACTS)
def test_the_problem_document_is_always_valid_json_with_visible_text(facts: Facts) -> None:
    document = problem(facts)
    assert document["status"] == facts.status
    for value in document.values():
        assert not isinstance(value, str) or value.isprintable()


@pytest.mark.parametrize(
    ("received", "shown"),
    [
        ("/caf\udce9", r"/caf\xe9"),
        ("/a\x1b[31m\r\n", r"/a\x1b[31m\x0d\x0a"),
        ("/\u202egnp.exe", r"/\u202egnp.exe"),
        ("/\U000e0041", r"/\U000e0041"),
        ("/caf\xe9/\u65e5", "/caf\xe9/\u65e5"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(received: str, shown: str) -> None:
    assert problem(replace(REFUSED, target=received))["target"] == shown
    assert shown in page(replace(REFUSED, target=received))


@pytest.mark.parametrize(
    ("received", "shown"),
    [
        ("/cb?code=s3cret&state=1", "/cb?code=***&state=1"),
        ("/x?a=1&access_token=s3cret", "/x?a=1&access_token=***"),
        ("/x?X-Amz-Signature=s3cret#f", "/x?X-Amz-Signature=***#f"),
        ("/x?API-Key=s3cret", "/x?API-Key=***"),
        ("http://me:s3cret@h/", "http://***@h/"),
        ("http://me:p@s3cret@h/", "http://***@h/"),
        ("/x?next=a?password=s3cret", "/x?next=a?password=***"),
        ("/x?page=2&sort=name", "/x?page=2&sort=name"),
    ],
)
def test_credentials_are_masked(received: str, shown: str) -> None:
    for accept in (None, b"text/html"):
        assert (
            b"s3cret" not in render(replace(REFUSED, target=received, upstream=received, tried=(received,)), accept)[1]
        )
    assert problem(replace(REFUSED, target=received))["target"] == shown


def test_a_credential_is_masked_before_the_text_is_cut() -> None:
    target = "http://me:" + "s3cret" * MAX_TEXT + "@h/"
    assert presentable(replace(REFUSED, target=target)).target == "http://***@h/"


def test_long_values_are_cut_and_say_so() -> None:
    shown = presentable(replace(REFUSED, target="/" * 16_384, detail="d" * 5000, tried=("t" * 5000,) * 20))
    assert shown.target == "/" * MAX_TEXT + "… (16384 characters)"
    assert shown.detail.startswith("d" * MAX_DETAIL + "…")
    assert len(shown.tried) == MAX_TRIED + 1
    assert shown.tried[-1] == "and 12 more"


@pytest.mark.parametrize("piece", ["?", "://", "&token", "?a", "@", "&=", ";auth"])
def test_a_hostile_target_costs_no_more_than_its_length(piece: str) -> None:
    facts = replace(REFUSED, target=piece * (200_000 // len(piece)))
    began = time.process_time()
    render(facts, BROWSER)
    assert time.process_time() - began < 1.0  # quadratic work would be minutes


def test_the_page_is_whole_in_itself() -> None:
    text = page(REFUSED)
    parsed = outline(text)
    assert not {"script", "img", "iframe", "object", "form", "base", "a"} & set(parsed.tags)
    assert [value for name, value in parsed.attributes if name in {"src", "href"}] == ["data:,"]
    assert "url(" not in text
    assert "@import" not in text
    assert ("lang", "en") in parsed.attributes
    assert parsed.tags.count("h1") == parsed.tags.count("title") == 1


# --- what a stranger sees -------------------------------------------------------------------------------------------

STRANGER = replace(
    REFUSED, error="", title=neutral(502)[0], detail=neutral(502)[1], method="", host=None, target="", route=None,
    owner=None, upstream=None, target_addr=None, tried=(), since=None, instance="", plain=True,
)  # fmt: skip


def test_a_plain_document_has_no_more_than_what_to_ask_about() -> None:
    assert problem(STRANGER) == {
        "type": "about:blank",
        "title": "The service cannot be reached",
        "status": 502,
        "detail": "Try again in a moment. If it lasts, give the request id to whoever runs this service.",
        "flag": "UF",
        "request_id": REFUSED.request_id,
    }


def test_a_plain_page_names_the_request_and_nothing_behind_the_gateway() -> None:
    text = page(STRANGER)
    assert REFUSED.request_id in text
    assert "The service cannot be reached" in text
    for secret in ("127.0.0.1", "8000", "team-api", "9a3f1c", "api.localhost", "refuse", "curl", "devhost-server"):
        assert secret not in text


@pytest.mark.parametrize("status", [500, 502, 503, 504, 508])
def test_a_neutral_sentence_names_no_target(status: int) -> None:
    title, detail = neutral(status)
    assert title[0].isupper()
    assert "target" not in (title + detail).lower()


def test_a_page_may_load_nothing_and_stand_in_no_frame() -> None:
    assert "default-src 'none'" in POLICY
    assert "frame-ancestors 'none'" in POLICY
    assert POLICY.partition("; frame-ancestors")[0] in page(REFUSED)
