"""What a request head may look like, what it says, and that no other reader finds another request in it."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from devhost_server.failures import Fault
from devhost_server.messages.options import Limits
from devhost_server.messages.partial_head import PartialHead
from devhost_server.messages.request_head import (
    RequestFields,
    hop_lines,
    parse_request_block,
    parse_request_line,
    split_absolute,
)
from devhost_server.messages.trust import Trust
from tests.messages import llhttp, near_http, ours
from tests.messages.trusting import PROXY, STRANGER, TRUST

SENTINEL = b"GET /sentinel HTTP/1.1\r\nHost: sentinel\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKED = b"Transfer-Encoding: chunked"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="

# Where the two readers are known to differ: llhttp has a closed list of methods and refuses the rest, refuses
# targets that are not ASCII, does not read a body behind any `Upgrade`, and is stricter about blanks and extensions
# (`near_http.read_differently`).


def fields_of(*lines: bytes, method: bytes = b"GET", trusted: bool = False) -> RequestFields:
    found = parse_request_block(b"".join(b"\r\n" + line for line in lines), method, PROXY if trusted else STRANGER)
    assert isinstance(found, RequestFields), found
    return found


def refusal(*lines: bytes, method: bytes = b"GET") -> Fault:
    found = parse_request_block(b"".join(b"\r\n" + line for line in lines), method, STRANGER)
    assert isinstance(found, Fault), found
    return found


# --- the request line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"GET / HTTP/1.1", (b"GET", b"/", False)),
        (b"GET / HTTP/1.0", (b"GET", b"/", True)),
        (b"M-SEARCH /a?b=c%2Fd HTTP/1.1", (b"M-SEARCH", b"/a?b=c%2Fd", False)),
        (b"OPTIONS * HTTP/1.1", (b"OPTIONS", b"*", False)),
        (b"GET http://a.test:80/x HTTP/1.1", (b"GET", b"http://a.test:80/x", False)),
        (b"GET HTTPS://A HTTP/1.1", (b"GET", b"HTTPS://A", False)),
        (b"get /\xc3\xa9 HTTP/1.1", (b"get", b"/\xc3\xa9", False)),
    ],
)
def test_request_lines_that_are_read(line: bytes, expected: tuple[bytes, bytes, bool]) -> None:
    assert parse_request_line(line) == expected


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"", 400),
        (b"GET /", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b" GET / HTTP/1.1", 400),
        (b"GET\t/\tHTTP/1.1", 400),
        (b"GET /\t HTTP/1.1", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET /#frag HTTP/1.1", 400),
        (b"GET /\x00 HTTP/1.1", 400),
        (b"GET /\x7f HTTP/1.1", 400),
        (b"GET /\r HTTP/1.1", 400),
        (b"GET a HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"GET ftp://a/ HTTP/1.1", 400),
        (b"GET http:/// HTTP/1.1", 400),
        (b"GET http://u:p@a/ HTTP/1.1", 400),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/1.01", 400),
        (b"GET / HTTP/1", 400),
        (b"G@T / HTTP/1.1", 400),
        (b"GET / HTTP/2.0", 505),
        (b"GET / HTTP/1.2", 505),
        (b"GET / HTTP/0.9", 505),
        (b"M" * 33 + b" / HTTP/1.1", 400),
        (b"CONNECT a:80 HTTP/1.1", 405),
        (b"TRACE / HTTP/1.1", 405),
    ],
)
def test_request_lines_that_are_refused(line: bytes, status: int) -> None:
    found = parse_request_line(line)
    assert isinstance(found, Fault)
    assert found.failure.status == status
    assert (found.allow is not None) == (status == 405)


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        (b"GET", b"http://a", (b"a", b"/")),
        (b"GET", b"http://a?b", (b"a", b"/?b")),
        (b"GET", b"http://a:8/x?y#", (b"a:8", b"/x?y#")),
        (b"OPTIONS", b"http://a", (b"a", b"*")),
        (b"OPTIONS", b"http://a/", (b"a", b"/")),
        (b"OPTIONS", b"http://a?b", (b"a", b"/?b")),
    ],
)
def test_the_absolute_form_is_split(method: bytes, target: bytes, expected: tuple[bytes, bytes]) -> None:
    assert split_absolute(method, target) == expected


def test_only_the_absolute_form_is_split() -> None:
    with pytest.raises(ValueError, match="/a"):
        split_absolute(b"GET", b"/a")


# --- the fields ------------------------------------------------------------------------------------------------------


def test_lines_are_passed_on_as_they_came() -> None:
    lines = [b"hOsT:a", b"B: 1", b"a: 2", b"B: 3", b"B:", b"X: \xff", b"X:a\t b"]
    assert fields_of(*lines).forward == b"".join(b"\r\n" + line for line in lines)


def test_blanks_around_a_value_are_not_passed_on() -> None:
    assert fields_of(b"A:  1", b"b: 2 \t", b"C:\t3", b"D: ").forward == b"\r\nA: 1\r\nb: 2\r\nC: 3\r\nD: "


def test_what_is_decided_on_is_read() -> None:
    fields = fields_of(
        b"Host: a:1", b"Content-Length: 12", b"Expect: 100-Continue", b"TE: gzip, trailers", b"User-Agent: u",
        b"Referer: r", b"traceparent: t", b"Via: 1.1 x", b"via: 1.0 y", method=b"POST",
    )  # fmt: skip
    assert (fields.host, fields.length, fields.has_body) == (b"a:1", 12, True)
    assert (fields.expect_continue, fields.trailers_welcome) == (True, True)
    assert (fields.user_agent, fields.referer, fields.traceparent) == (b"u", b"r", b"t")
    assert fields.via == b"1.1 x, 1.0 y"
    assert fields.get(b"referer") == b"r"
    assert fields.get(b"nothing") is None
    assert not fields_of(b"Content-Length: 0").has_body


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([b"A"], 400),
        ([b": x"], 400),
        ([b"A : x"], 400),
        ([b" A: x"], 400),
        ([b"A: x", b" folded: y"], 400),
        ([b"A\xe9: x"], 400),
        ([b"A: x\x00"], 400),
        ([b"A: x\ry"], 400),
        ([b"A: x\n"], 400),
        ([b"A: \x1f"], 400),
        ([b"Host: a", b"host: a"], 400),
        ([b"Content-Length: 1", b"Content-Length: 1"], 400),
        ([b"Content-Length: 1, 1"], 400),
        ([b"Content-Length: +1"], 400),
        ([b"Content-Length: -1"], 400),
        ([b"Content-Length: "], 400),
        ([b"Content-Length: 0x1"], 400),
        ([b"Content-Length: 9999999999999999999"], 400),
        ([b"Content-Length: 1", b"Transfer-Encoding: chunked"], 400),
        ([b"Transfer-Encoding: chunked", b"Content-Length: 0"], 400),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], 400),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip"], 400),
        ([b"Transfer-Encoding: chunked, gzip"], 400),
        ([b"Transfer-Encoding: identity"], 400),
        ([b"Transfer-Encoding: "], 400),
        ([b"Transfer-Encoding: gzip, chunked"], 501),
        ([b"Connection: upgrade", b"Upgrade: websocket"], 400),
        ([b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: c2hvcnQ="], 400),
        ([b"Connection: upgrade", b"Upgrade: websocket", *[b"Sec-WebSocket-Key: " + KEY] * 2], 400),
        ([b"Connection: upgrade", b"Upgrade: foo, WebSocket/13"], 400),
        ([b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: " + KEY, b"Content-Length: 1"], 400),
        ([b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: " + KEY, CHUNKED], 400),
    ],
)  # fmt: skip
def test_fields_that_are_refused(lines: list[bytes], status: int) -> None:
    assert refusal(*lines).failure.status == status


@pytest.mark.parametrize(
    "line",
    [
        b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"Proxy-Authorization: Basic eA==", b"Proxy: evil",
        b"HTTP2-Settings: x", b"TE: trailers", b"Upgrade: h2c", b"Connection: x-gone", b"X-Gone: 1", b"x-gone: 2",
    ],
)  # fmt: skip
def test_what_is_meant_for_one_hop_stays_there(line: bytes) -> None:
    assert fields_of(b"Host: a", line, b"Connection: X-Gone", b"A: b").forward == b"\r\nHost: a\r\nA: b"


@pytest.mark.parametrize("name", [b"Host", b"Authorization", b"Cookie", b"Content-Length", b"Content-Type", b"Via"])
def test_a_connection_line_cannot_take_away_what_is_end_to_end(name: bytes) -> None:
    fields = fields_of(name + b": 1", b"Connection: " + name)
    assert fields.forward == b"\r\n" + name + b": 1"


def test_upgrade_counts_only_if_connection_names_it() -> None:
    assert fields_of(b"Upgrade: websocket").upgrade is None
    assert fields_of(b"Upgrade: foo", b"Connection: Upgrade").upgrade == b"foo"
    fields = fields_of(
        b"Connection: keep-alive, UPGRADE", b"Upgrade: foo", b"upgrade: WebSocket", b"Sec-WebSocket-Key: " + KEY
    )
    assert fields.upgrade == b"foo, WebSocket"
    assert fields.wants_websocket
    assert b"Sec-WebSocket-Key: " + KEY in fields.forward


@pytest.mark.parametrize("protocol", [b"h2c", b"h2", b"H2C, h2"])
def test_an_upgrade_to_http2_is_ignored(protocol: bytes) -> None:
    fields = fields_of(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + protocol, b"HTTP2-Settings: AAA")
    assert fields.upgrade is None
    assert fields.forward == b""


@pytest.mark.parametrize(
    ("line", "binds"),
    [
        (b"Authorization: NTLM TlRMTVNTUAAB", True),
        (b"AUTHORIZATION: negotiate  YII", True),
        (b"Authorization: Negotiate", True),
        (b"Authorization: Basic TlRMTQ==", False),
        (b"Authorization: NTLMish x", False),
        (b"Proxy-Authorization: NTLM TlRMTVNTUAAB", False),
    ],
)
def test_credentials_that_authenticate_a_connection(line: bytes, binds: bool) -> None:
    fields = fields_of(b"Host: a", line)
    assert (fields.credentials, fields.plain) == (binds, not binds)


def test_persistence_is_what_connection_says() -> None:
    assert fields_of(b"Connection: Close").close
    assert fields_of(b"Connection: a", b"connection: b , KEEP-ALIVE").keep_alive
    assert not fields_of(b"X: close").close


@st.composite
def spoofed_lines(draw: st.DrawFn) -> bytes:
    """A forwarded field in any spelling: case, dashes or underscores, listed or invented."""
    name = draw(
        st.sampled_from(["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "forwarded",
                         "x-forwarded-user", "x-forwarded-client-cert", "x-real-ip", "x-request-id"])
    )  # fmt: skip
    spelt = "".join(draw(st.sampled_from([c.upper(), c] if c != "-" else ["-", "_"])) for c in name)
    return spelt.encode() + draw(st.sampled_from([b": ", b":", b":\t"])) + draw(near_http.values)


@given(st.lists(st.one_of(spoofed_lines(), near_http.values.map(lambda value: b"X-Mine: " + value)), max_size=8))
def test_nothing_spoofed_survives_from_a_peer_that_is_not_trusted(lines: list[bytes]) -> None:
    fields = fields_of(*lines)
    assert fields.kept == [line for line in lines if line.startswith(b"X-Mine")]
    assert (fields.forwarded_for, fields.forwarded_proto, fields.forwarded_host) == (None, None, None)
    assert (fields.forwarded_port, fields.request_id) == (None, None)


@pytest.mark.parametrize("mark", list(b"!#$%&'*+.^_`|~"))
@pytest.mark.parametrize(
    "name",
    [b"x-forwarded-for", b"X-Forwarded-Proto", b"X-Real-IP", b"Forwarded-", b"X-REQUEST-ID", b"content-length",
     b"Transfer-Encoding", b"X-Forwarded-User", b"Remote-User", b"X-Auth-Request-Email", b"X-Devhost-Overlay",
     b"Content-Type", b"X-Client-Cert-Subject", b"Keep-Alive"],
)  # fmt: skip
def test_no_alias_survives_even_from_a_trusted_peer(name: bytes, mark: int) -> None:
    alias = name.replace(b"-", bytes([mark])) if b"-" in name[:-1] else bytes([mark]).join((b"X-Forwarded", b"For"))
    assert fields_of(alias + b": 1", trusted=True).forward == b""
    assert fields_of(b"X-Forwarded" + bytes([mark]) + b"Anything: 1").forward == b""


@pytest.mark.parametrize("name", [b"X_Custom", b"x.y", b"X!Realm!IP", b"X--Real-IP", b"Remote_Control"])
def test_what_is_an_alias_of_nothing_passes(name: bytes) -> None:
    assert fields_of(name + b": 1").forward == b"\r\n" + name + b": 1"


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize(
    "name",
    ["Remote-User", "remote-GROUPS", "X-Auth-Request-User", "X-Forwarded-Email", "X-Client-Cert-Subject",
     "X-Devhost-Replay", "True-Client-IP", "X-Client-IP", "X-Original-URL", "X-Real-IP", "Forwarded"],
)  # fmt: skip
def test_statements_that_are_not_listed_are_dropped_from_everybody(name: str, trusted: bool) -> None:
    assert fields_of(name.encode() + b": me", trusted=trusted).forward == b""


def test_what_is_listed_passes_from_trusted_peers_alone() -> None:
    trust = Trust(TRUST.networks, frozenset((b"x-forwarded-user",)))
    lines = b"\r\nX-Forwarded-User: me\r\nX-Forwarded-Proto: https\r\nX_Forwarded_User: you"
    fields = parse_request_block(lines, b"GET", trust.peer("10.0.0.1"))
    assert isinstance(fields, RequestFields)
    assert fields.forward == b"\r\nX-Forwarded-User: me"
    assert fields.forwarded_proto is None, "it is not listed any more"
    fields = parse_request_block(lines, b"GET", trust.peer("203.0.113.9"))
    assert isinstance(fields, RequestFields)
    assert fields.forward == b""


def test_aliases_of_what_routes_decide_on_are_dropped() -> None:
    trust = Trust(decisive=frozenset((b"x-canary",)))
    fields = parse_request_block(b"\r\nX_Canary: 0\r\nX-Canary: 1\r\nX_Other: 2", b"GET", trust.peer("203.0.113.9"))
    assert isinstance(fields, RequestFields)
    assert fields.forward == b"\r\nX-Canary: 1\r\nX_Other: 2"


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        ([b"X-Canary: 1"], b"1"),
        ([b"x-CANARY:1\t"], b"1"),
        ([b"X-Canary: 1", b"X-Canary: 1"], b"1"),
        ([b"X-Canary: 1", b"X-Canary: 0"], None),
        ([b"X-Canary: 0", b"X-Canary: 1"], None),
        ([b"X-Canary: 1", b"X-Canary:"], None),
        ([b"X-Canary: 1, 0"], b"1, 0"),
        ([b"X-Canary: 1", b"X_Canary: 0"], None),
        ([b"X-Canary: 1", b"X.Canary: 1"], b"1"),
        ([b"X_Canary: 1"], None),
        ([], None),
    ],
)
def test_a_route_hears_a_value_only_if_every_server_does(lines: list[bytes], value: bytes | None) -> None:
    assert fields_of(*lines).sole(b"x-canary") == value


def test_a_route_hears_nothing_that_a_connection_line_takes_away() -> None:
    """The application would not see it: who asks for another route by it would pass that route's own check by."""
    for nominating in (b"Connection: X-Team", b"Connection: close, x-team", b"Connection:X-TEAM,"):
        fields = fields_of(nominating, b"X-Team: blue", b"Cookie: a=b")
        assert fields.sole(b"x-team") is None
        assert b"blue" not in fields.forward
        assert fields.sole(b"cookie") == b"a=b"
    kept = fields_of(b"Connection: cookie, authorization, upgrade", b"Cookie: a=b", b"Upgrade: foo")
    assert (kept.sole(b"cookie"), kept.sole(b"upgrade")) == (b"a=b", b"foo")


def test_a_route_hears_no_statement_of_a_stranger() -> None:
    lines = [b"X-Forwarded-Proto: https", b"X-Forwarded-For: 6.6.6.6", b"Remote-User: admin"]
    for name in (b"x-forwarded-proto", b"x-forwarded-for", b"remote-user"):
        assert fields_of(*lines).sole(name) is None
    assert fields_of(*lines, trusted=True).sole(b"x-forwarded-proto") == b"https"
    assert fields_of(b"X-Devhost-Variant: a").sole(b"x-devhost-variant") == b"a"


@pytest.mark.parametrize(
    ("value", "prefix"),
    [
        (b"/shop", b"/shop"),
        (b"/a/b/", b"/a/b"),
        (b"/x, /a%20b", b"/a%20b"),
        (b"//evil.test", None),
        (b"/a//b", None),
        (b"/%2fevil.test", None),
        (b"/\\evil.test", None),
        (b"/%5Cevil.test", None),
        (b"/a/../b", None),
        (b"https://evil.test/", None),
        (b"/", None),
        (b"", None),
        (b"/a?b", None),
    ],
)
def test_a_prefix_is_believed_if_it_can_be_one(value: bytes, prefix: bytes | None) -> None:
    assert fields_of(b"X-Forwarded-Prefix: " + value, trusted=True).forwarded_prefix == prefix
    assert fields_of(b"X-Forwarded-Prefix: " + value).forwarded_prefix is None


@pytest.mark.parametrize("path", ["/x/..;/a", "/x/.;v=1/a", "/x\\a", "/x%5ca", "/x%5C..%5ca", "/a%00", "/..%3b/a"])
def test_strict_paths_are_refused_in_every_form_of_a_target(path: str) -> None:
    for target in (path, path + "?q", "http://a.test" + path):
        line = f"GET {target} HTTP/1.1".encode()
        assert isinstance(parse_request_line(line), tuple)
        found = parse_request_line(line, strict=True)
        assert isinstance(found, Fault)
        assert (found.failure.flag, found.failure.status) == ("BR", 400)
    for target in ("/?q=" + path, "*", "http://a.test", "/a;v=1/b%2Fc"):
        method = "OPTIONS" if target == "*" else "GET"
        assert isinstance(parse_request_line(f"{method} {target} HTTP/1.1".encode(), strict=True), tuple)


def test_a_trusted_peer_is_believed() -> None:
    fields = fields_of(
        b"X-Forwarded-For: 1.1.1.1", b"x-forwarded-for: 2.2.2.2", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: h",
        b"X-Forwarded-Port: 443", b"X-Request-ID: abc-1", b"Forwarded: for=1", b"X-Forwarded-User: u", trusted=True,
    )  # fmt: skip
    assert fields.forwarded_for == b"1.1.1.1, 2.2.2.2"
    assert (fields.forwarded_proto, fields.forwarded_host, fields.forwarded_port) == (b"https", b"h", b"443")
    assert fields.request_id == b"abc-1"
    assert fields.client_address == b"2.2.2.2"
    assert fields.kept == []
    assert fields.disbelieved == {b"forwarded", b"x-forwarded-user"}


@pytest.mark.parametrize("value", [b"", b"a b", b'a"b', b"a" * 129, b"\xff", b"a,b"])
def test_a_request_id_that_could_be_misread_is_replaced(value: bytes) -> None:
    fields = fields_of(b"X-Request-ID: " + value, trusted=True)
    assert fields.request_id is None
    assert not fields.kept


def test_another_host_takes_the_place_of_the_clients() -> None:
    fields = fields_of(b"A: 1", b"X-Gone: 1", b"Host: h", b"Connection: x-gone", b"B: 2")
    assert fields.forward == b"\r\nA: 1\r\nHost: h\r\nB: 2"
    assert fields.forward_with(b"other:80") == b"\r\nA: 1\r\nHost: other:80\r\nB: 2"
    assert fields_of(b"A: 1").forward_with(b"h").replace(b"\r\nHost: h", b"") == b"\r\nA: 1"


# --- differences between readers -------------------------------------------------------------------------------------


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"M-SEARCH"] * 8 + [b"OPTIONS", b"get", b"G T", b""]))
    sound = [b"/", b"/a?b=c", b"http://a.test/x", b"/%2e%2e/", b"//x"]
    target = draw(st.sampled_from(sound * 4 + [b"*", b"/a b", b"x", b""]))
    version = draw(st.sampled_from([b"HTTP/1.1"] * 40 + [b"HTTP/1.0", b"HTTP/1.1 ", b"http/1.1", b"HTTP/2.0"]))
    line = method + draw(st.sampled_from([b" "] * 40 + [b"  ", b"\t"])) + target + b" " + version
    lines = draw(st.lists(near_http.field_lines(), max_size=4))
    return line + draw(near_http.line_ends) + b"Host: a\r\n" + b"".join(lines) + b"\r\n"


@st.composite
def plausible_requests(draw: st.DrawFn) -> bytes:
    """A request whose framing is announced properly, so that bodies are reached."""
    framing, body = draw(near_http.framed_bodies())
    lines = draw(st.lists(near_http.field_lines(), max_size=1))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    return b"POST / HTTP/" + version + b"\r\nHost: a\r\n" + framing + b"".join(lines) + b"\r\n" + body


streams = st.one_of(near_http.spliced(requests()), near_http.spliced(plausible_requests()))


def compare(stream: bytes) -> None:
    """Assert that whatever requests the gateway accepts in these bytes, llhttp finds the very same ones."""
    accepted, reference = ours.read_requests(stream), llhttp.read_requests(stream)
    told = (stream, accepted, reference)
    for ours_read, theirs in zip(accepted, reference, strict=False):
        if not llhttp.knows_method(ours_read.method) or not ours_read.target.isascii():
            return
        if near_http.read_differently(stream):
            return
        assert theirs.method == ours_read.method, told
        assert (theirs.target, theirs.version) == (ours_read.target, ours_read.version), told
        assert theirs.fields == ours_read.fields, told
        assert theirs.keep_alive == ours_read.keep_alive, told
        if theirs.upgrade:
            return
        assert theirs.end, told
        assert theirs.body == ours_read.body, told
        assert set(ours_read.trailers) <= set(theirs.trailers), told
    assert len(accepted) <= len(reference), told


@settings(max_examples=300)
@given(st.lists(streams, min_size=1, max_size=3).map(b"".join))
@example(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: Transfer-Encoding\r\n\r\n0\r\n\r\n")
@example(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET / HTTP/1.1\r\n\r\n")
def test_no_other_reader_finds_another_request(stream: bytes) -> None:
    compare(stream + SENTINEL)


@pytest.mark.parametrize("body", [b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"0\r\n\r\n"])
def test_no_other_reader_finds_another_length(body: bytes) -> None:
    for framing in near_http.announced(body):
        compare(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n" + body + SENTINEL)


def judged(partial: bytes, size: int = 1 << 20) -> Fault | None:
    """Say what is wrong with a head that has come so far, in pieces of `size` bytes."""
    head = PartialHead(Limits())
    fault: Fault | None = None
    for at in range(0, len(partial), size):
        assert head.feed(partial[at : at + size]) < 0
        fault = fault or head.judge()
    return fault


@given(st.lists(st.one_of(plausible_requests(), requests()), min_size=1, max_size=1).map(b"".join), st.integers(1, 5))
def test_a_head_that_comes_in_pieces_is_judged_as_it_is_whole(stream: bytes, size: int) -> None:
    partial = stream.partition(b"\r\n\r\n")[0]
    whole, pieces = judged(partial), judged(partial, size)
    assert (whole is None) == (pieces is None)
    assert whole is None or pieces is None or whole.failure.status == pieces.failure.status


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@pytest.mark.parametrize(
    ("partial", "status"),
    [
        (b"GET /" + b"a" * 20_000, 414),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n", 414),
        (b"M" * 33, 400),
        (b"M" * 20_000, 400),
        (b"M" * 33 + b" /" + b"a" * 20_000, 400),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 70_000, 431),
        (b"GET / HTTP/1.1" + b"\r\nA: b" * 130, 431),
    ],
)
def test_what_is_too_long_is_seen_however_it_comes(partial: bytes, status: int, size: int) -> None:
    fault = judged(partial, size)
    assert fault is not None
    assert fault.failure.status == status


@given(st.lists(st.one_of(plausible_requests(), requests()), min_size=1, max_size=1).map(b"".join), st.data())
def test_a_flaw_is_never_seen_early_in_a_head_that_is_accepted(stream: bytes, data: st.DataObject) -> None:
    head, complete, _ = stream.partition(b"\r\n\r\n")
    partial = head[: data.draw(st.integers(0, len(head)))]
    line, _, _ = head.partition(b"\r\n")
    sound = bool(complete) and not isinstance(parse_request_line(line), Fault)
    sound = sound and not isinstance(parse_request_block(head[len(line) :], b"GET", STRANGER), Fault)
    if judged(partial) is not None:
        assert not sound


@pytest.mark.parametrize(
    "partial",
    [b"GET / HTTP/1.1\n", b"GET /\x00", b"\x16\x03\x01", b"GET / HTTP/9.9\r\n", b"GET / HTTP/1.1\r\nA: b\nC", b"GE\rT",
     b"GET / HTTP/1.1\r\nA: \x01"],
)  # fmt: skip
def test_flaws_that_nothing_can_mend_are_seen_at_once(partial: bytes) -> None:
    assert judged(partial) is not None


@pytest.mark.parametrize(
    "partial", [b"", b"G", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\nHost: a\r", b"GET / HTTP/1.1\r\n"]
)
def test_a_head_that_may_still_become_good_is_waited_for(partial: bytes) -> None:
    assert judged(partial) is None


@pytest.mark.parametrize("expecting", [False, True])
def test_a_chunked_body_that_was_gathered_is_announced_with_its_length(expecting: bool) -> None:
    lines = [b"Host: a", b"Transfer-Encoding: chunked", b"Trailer: X-Sum", b"TE: trailers"]
    if expecting:
        lines.append(b"Expect: 100-continue")
    fields = parse_request_block(b"\r\n" + b"\r\n".join(lines), b"POST", STRANGER)
    assert isinstance(fields, RequestFields)
    with_length = hop_lines(fields, length=7, trailers=True)
    assert with_length == b"\r\nContent-Length: 7\r\nTE: trailers\r\nConnection: TE\r\n\r\n"
    assert hop_lines(fields, length=0).startswith(b"\r\nContent-Length: 0\r\n")
    chunked = b"\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nConnection: TE\r\n\r\n"
    assert hop_lines(fields, continued=True) == chunked
    assert (hop_lines(fields) == chunked) != expecting
