"""The heads that are sent: they parse back, say what the gateway vouches for, and repeat nothing that was spoofed."""

from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost_server.messages import forwarding as forward
from devhost_server.messages.forwarding import loops, prefix_line, rewrite, with_slash
from devhost_server.messages.request_head import RequestFields, hop_lines, parse_request_block
from devhost_server.messages.response_head import ResponseHead, parse_response
from devhost_server.messages.reuse import Reason
from devhost_server.messages.trust import Peer
from tests.messages import llhttp, near_http, ours
from tests.messages.trusting import PROXY, STRANGER

INSTANCE = b"1a2b3c4d"


def fields_of(*lines: bytes, trusted: bool = False) -> RequestFields:
    found = parse_request_block(b"".join(b"\r\n" + line for line in lines), b"GET", PROXY if trusted else STRANGER)
    assert isinstance(found, RequestFields), found
    return found


def head_of(
    *lines: bytes,
    peer: Peer = STRANGER,
    host_line: bytes | None = None,
    old: bool = False,
    prefix: bytes = b"",
    upgrades: frozenset[bytes] = frozenset({b"foo", b"websocket"}),
    **decided: Any,
) -> bytes:
    fields = fields_of(*lines, trusted=peer.trusted)
    hop = hop_lines(fields, old=old, upgrades=upgrades, **decided)
    return forward.request_head(
        b"GET", b"/a?b", fields, old=old, host=fields.host or b"asked.test", host_line=host_line, peer=peer,
        request_id=b"id-1", instance=INSTANCE, prefix=prefix, hop=hop,
    )  # fmt: skip


def sent(*lines: bytes, **decided: Any) -> dict[bytes, bytes]:
    """Give the fields that a target is sent, by name; a name that is there twice fails."""
    head = head_of(*lines, **decided)
    (read,) = llhttp.read_requests(head + b"0\r\n\r\n" if b"chunked" in head else head)
    pairs = [(name.lower(), value) for name, value in read.fields]
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)


# --- the request head ------------------------------------------------------------------------------------------------


def test_what_a_target_is_sent() -> None:
    assert head_of(b"hOst: a.test:1", b"X-One: 1", b"x-one: 2") == (
        b"GET /a?b HTTP/1.1\r\nhOst: a.test:1\r\nX-One: 1\r\nx-one: 2\r\nX-Forwarded-For: 203.0.113.9\r\n"
        b"X-Forwarded-Proto: http\r\nX-Real-IP: 203.0.113.9\r\n"
        b'Forwarded: for=203.0.113.9;proto=http;host="a.test:1"\r\n'
        b"X-Forwarded-Host: a.test:1\r\nX-Forwarded-Port: 1\r\nX-Request-ID: id-1\r\n"
        b"Via: 1.1 devhost (1a2b3c4d)\r\n\r\n"
    )


def test_a_trusted_proxys_values_are_kept_and_its_address_is_added() -> None:
    fields = sent(
        b"Host: a.test", b"X-Forwarded-For: 198.51.100.1", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: b.test",
        b"X-Forwarded-Port: 8443", b"X-Forwarded-User: me", b"Forwarded: for=x", b"X-Real-IP: 6.6.6.6", peer=PROXY,
    )  # fmt: skip
    assert fields[b"x-forwarded-for"] == b"198.51.100.1, 10.0.0.1"
    assert (fields[b"x-forwarded-proto"], fields[b"x-forwarded-port"]) == (b"https", b"8443")
    assert fields[b"x-forwarded-host"] == b"b.test"
    assert fields[b"forwarded"] == b'for=198.51.100.1;proto=https;host="b.test"'
    assert fields[b"x-real-ip"] == b"198.51.100.1"
    assert b"x-forwarded-user" not in fields


def test_a_trusted_proxy_that_says_nothing_is_the_client() -> None:
    fields = sent(b"Host: a.test", peer=PROXY)
    assert fields[b"x-forwarded-for"] == fields[b"x-real-ip"] == b"10.0.0.1"
    assert (fields[b"x-forwarded-proto"], fields[b"x-forwarded-port"]) == (b"http", b"80")
    assert fields[b"x-forwarded-host"] == b"a.test"


@pytest.mark.parametrize(
    ("lines", "port"),
    [
        ([b"Host: a.test"], b"80"),
        ([b"Host: a.test:8080"], b"8080"),
        ([b"Host: a.test:"], b"80"),
        ([b"Host: [2001:db8::7]"], b"80"),
        ([b"Host: [2001:db8::7]:99"], b"99"),
        ([b"Host: a.test:7777", b"X-Forwarded-Host: b.test"], b"80"),
        ([b"Host: a.test:7777", b"X-Forwarded-Host: b.test", b"X-Forwarded-Proto: https"], b"443"),
        ([b"Host: a.test", b"X-Forwarded-Host: b.test:8443", b"X-Forwarded-Proto: https"], b"8443"),
        ([b"Host: a.test", b"X-Forwarded-Proto: wss"], b"443"),
        ([b"Host: a.test", b"X-Forwarded-Proto: https", b"X-Forwarded-Port: 444"], b"444"),
        ([b"Host: a.test", b"X-Forwarded-Proto: https", b"X-Forwarded-Port: 0"], b"443"),
        ([b"Host: a.test:1", b"X-Forwarded-Port: 65536"], b"1"),
    ],
)
def test_the_port_is_that_of_the_address_that_the_client_asked_for(lines: list[bytes], port: bytes) -> None:
    assert sent(*lines, peer=PROXY)[b"x-forwarded-port"] == port
    if len(lines) == 1:
        assert sent(*lines)[b"x-forwarded-port"] == port


def test_an_ipv6_client_is_quoted_where_it_has_to_be() -> None:
    fields = sent(b"Host: a.test", b"X-Forwarded-For: [2001:DB8::7]:4711", peer=PROXY)
    assert fields[b"x-real-ip"] == b"2001:db8::7"
    assert fields[b"forwarded"] == b'for="[2001:db8::7]";proto=http;host="a.test"'


def test_of_several_values_the_last_is_the_one_that_the_peer_added() -> None:
    fields = sent(
        b"Host: a.test", b"X-Forwarded-Host: evil.test, b.test", b"X-Forwarded-Proto: http",
        b"X-Forwarded-Proto: HTTPS", peer=PROXY,
    )  # fmt: skip
    assert (fields[b"x-forwarded-host"], fields[b"x-forwarded-proto"]) == (b"b.test", b"https")


@pytest.mark.parametrize("host", [b'b.test";for=6.6.6.6', b"b/../x", b"b.test\\", b"b.test:99999", b"a b", b""])
def test_a_host_that_is_none_is_not_believed(host: bytes) -> None:
    fields = sent(b"Host: a.test", b"X-Forwarded-Host: " + host, peer=PROXY)
    assert fields[b"x-forwarded-host"] == b"a.test"
    assert fields[b"forwarded"] == b'for=10.0.0.1;proto=http;host="a.test"'


def test_a_prefix_is_added_to_the_one_before_ours() -> None:
    assert prefix_line(b"/outer", b"/shop") == b"\r\nX-Forwarded-Prefix: /outer/shop"
    head = head_of(b"Host: a.test", peer=PROXY, prefix=prefix_line(b"/outer", b""))
    assert b"\r\nX-Request-ID: id-1\r\nX-Forwarded-Prefix: /outer\r\nVia: " in head


@pytest.mark.parametrize(
    ("before", "after"), [([b"A: 1"], [b"B: 2"]), ([], []), ([b"X-Gone: 1", b"Connection: x-gone"], [b"A: 1"])]
)
def test_another_host_stands_where_the_clients_stood(before: list[bytes], after: list[bytes]) -> None:
    head = head_of(*before, b"Host: a.test", *after, host_line=b"target:80")
    kept = [line for line in before if line == b"A: 1"]
    assert head.split(b"\r\n")[1 : 2 + len(kept) + len(after)] == [*kept, b"Host: target:80", *after]
    assert head.lower().count(b"\r\nhost:") == 1
    assert b"X-Forwarded-Host: a.test" in head


def test_a_request_without_host_is_given_one() -> None:
    head = head_of(b"A: 1", host_line=b"target:80")
    assert head.startswith(b"GET /a?b HTTP/1.1\r\nHost: target:80\r\nA: 1\r\n")
    assert b"X-Forwarded-Host: asked.test" in head


def test_the_lines_of_our_own_hop() -> None:
    assert b"transfer-encoding" not in sent(b"Host: a")
    assert sent(b"Host: a", b"Transfer-Encoding: Chunked")[b"transfer-encoding"] == b"chunked"
    assert sent(b"Host: a", b"TE: gzip, trailers")[b"te"] == b"trailers"
    assert sent(b"Host: a", b"TE: trailers")[b"connection"] == b"TE"
    upgraded = sent(b"Host: a", b"Connection: keep-alive, Upgrade", b"Upgrade: foo", b"TE: trailers")
    assert (upgraded[b"connection"], upgraded[b"upgrade"]) == (b"Upgrade, TE", b"foo")
    closing = sent(b"Host: a", b"TE: trailers", b"Content-Length: 0", reasons=Reason.BODY)
    assert closing[b"connection"] == b"close", "and nothing beside it, which some servers would not understand"
    assert b"te" not in closing
    assert sent(b"Host: a", b"Expect: 100-continue", b"Content-Length: 0").get(b"expect") is None
    assert b"\r\nExpect: 100-continue\r\n" in head_of(b"Host: a", b"Expect: 100-continue", b"Content-Length: 1")


@pytest.mark.parametrize(
    ("asked", "allowed", "offered"),
    [
        (b"foo", {b"foo"}, b"foo"),
        (b"FOO/2", {b"foo"}, b"FOO/2"),
        (b"bar, Foo/1.1 ,, foo", {b"foo"}, b"Foo/1.1, foo"),
        (b"TLS/1.2", {b"websocket"}, None),
        (b"foo", set(), None),
        (b"h2c", {b"h2c"}, None),
        (b"H2C/1, foo, h2", {b"h2c", b"h2", b"foo"}, b"foo"),
    ],
)
def test_only_what_the_route_lists_is_offered(asked: bytes, allowed: set[bytes], offered: bytes | None) -> None:
    read = sent(b"Host: a", b"Connection: Upgrade", b"Upgrade: " + asked, upgrades=frozenset(allowed))
    assert (read.get(b"upgrade"), read.get(b"connection")) == (offered, offered and b"Upgrade")


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_an_upgrade_is_never_offered_with_a_body(framing: bytes) -> None:
    read = sent(b"Host: a", b"Connection: Upgrade", b"Upgrade: foo", framing)
    assert not {b"upgrade", b"connection"} & set(read)


def test_trailers_are_announced_only_where_they_are_passed_on() -> None:
    lines = (b"Host: a", b"Transfer-Encoding: chunked", b"Trailer: X-A", b"trailer: X-B")
    assert b"trailer" not in sent(*lines)
    assert sent(*lines, trailers=True)[b"trailer"] == b"X-A, X-B"


def test_an_old_client_neither_expects_nor_upgrades() -> None:
    head = head_of(
        b"Host: a", b"Connection: upgrade", b"Upgrade: foo", b"Expect: 100-continue", b"Content-Length: 1",
        b"TE: trailers",
        old=True, trailers=True,
    )  # fmt: skip
    names = [line.partition(b":")[0] for line in head.split(b"\r\n")[1:-2]]
    assert names[:2] == [b"Host", b"Content-Length"]
    assert not {b"Connection", b"Upgrade", b"Expect", b"TE"} & set(names)
    assert b"Via: 1.0 devhost" in head


@st.composite
def request_lines(draw: st.DrawFn) -> list[bytes]:
    """A sound field section, with whatever a client may put there."""
    names = st.sampled_from([
        b"A", b"X-Gone", b"x-gone", b"Connection", b"Keep-Alive", b"TE", b"Proxy", b"Proxy-Authorization",
        b"X-Forwarded-For",
        b"x_forwarded_for", b"X-Forwarded-Proto", b"X-FORWARDED-HOST", b"X-Forwarded-Anything", b"Forwarded",
        b"X-Real-Ip",
        b"X-Request-ID", b"Via", b"Cookie",
    ])  # fmt: skip
    values = st.one_of(
        near_http.values, st.sampled_from([b"close", b"X-Gone, Cookie", b"trailers", b"keep-alive, host"])
    )
    pairs = draw(st.lists(st.tuples(names, values), max_size=8))
    return [b"Host: a.test", *(b": ".join(pair) for pair in pairs)]


@given(request_lines(), st.booleans(), st.booleans())
def test_every_head_reads_back_as_one_request(lines: list[bytes], old: bool, replaced: bool) -> None:
    head = head_of(*lines, host_line=b"target" if replaced else None, old=old)
    (read,) = llhttp.read_requests(head)
    (again,) = ours.read_requests(head)
    assert (
        (read.method, read.target, read.version)
        == (again.method, again.target, again.version)
        == (b"GET", b"/a?b", "1.1")
    )
    assert read.fields == again.fields
    assert read.keep_alive


@given(request_lines())
def test_a_stranger_decides_nothing_that_is_vouched_for(lines: list[bytes]) -> None:
    head = head_of(*lines)
    (read,) = llhttp.read_requests(head)
    vouched = [
        (name, value) for name, value in read.fields if name.lower().replace(b"_", b"-").startswith(b"x-forwarded-")
    ]
    assert vouched == [
        (b"X-Forwarded-For", b"203.0.113.9"), (b"X-Forwarded-Proto", b"http"), (b"X-Forwarded-Host", b"a.test"),
        (b"X-Forwarded-Port", b"80"),
    ]  # fmt: skip
    names = [name.lower() for name, _ in read.fields]
    assert names.count(b"x-request-id") == 1
    assert [value for name, value in read.fields if name.lower() == b"x-real-ip"] == [b"203.0.113.9"]
    assert [value for name, value in read.fields if name.lower() == b"forwarded"] == [
        b'for=203.0.113.9;proto=http;host="a.test"'
    ]
    assert not {b"proxy", b"proxy-authorization", b"keep-alive"} & set(names)
    assert [line for line in lines if line.startswith(b"Cookie")] == [
        name + b": " + value for name, value in read.fields if name == b"Cookie"
    ]
    assert b"X-Gone, Cookie" not in b"".join(line for line in lines if line.startswith(b"Connection")) or not {
        b"x-gone"
    } & set(names)


# --- loops -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("via", "loop"),
    [
        (b"1.1 devhost (1a2b3c4d)", True),
        (b"1.0 squid, 1.1 DEVHOST (1a2b3c4d), 1.1 x", True),
        (b"1.1 devhost (ffffffff)", False),
        (b", ".join([b"1.1 devhost (ffffffff)"] * 7), False),
        (b", ".join([b"1.1 devhost (ffffffff)"] * 8), True),
        (b", ".join([b"1.1 squid"] * 50), False),
        (b"", False),
    ],
)
def test_loops(via: bytes, loop: bool) -> None:
    assert loops(via, INSTANCE) is loop


def test_what_we_send_ourselves_is_a_loop() -> None:
    fields = fields_of(*head_of(b"Host: a", b"Via: 1.1 x").split(b"\r\n")[1:-2])
    assert fields.via is not None
    assert loops(fields.via, INSTANCE)


# --- the target ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "prefix", "base", "expected"),
    [
        (b"/a/../%2e/b?../c", b"", b"", b"/a/../%2e/b?../c"),
        (b"*", b"/a", b"/b", b"*"),
        (b"/v1/x?y=/../z", b"/v1", b"", b"/x?y=/../z"),
        (b"/v1", b"/v1", b"", b"/"),
        (b"/v1?q", b"/v1", b"", b"/?q"),
        (b"/v1/", b"/v1", b"", b"/"),
        (b"/v1/x", b"/v1", b"/base", b"/base/x"),
        (b"/v1//evil.test/x", b"/v1", b"", b"/evil.test/x"),
        (b"/v1///evil.test/x", b"/v1", b"", b"/evil.test/x"),
        (b"/v1/%2fevil.test", b"/v1", b"", b"/evil.test"),
        (b"/v1/%2F%2f/evil.test", b"/v1", b"", b"/evil.test"),
        (b"/v1/\\evil.test", b"/v1", b"", b"/evil.test"),
        (b"/v1/%5Cevil.test", b"/v1", b"", b"/evil.test"),
        (b"/v1/%09/evil.test", b"/v1", b"", b"/evil.test"),
        (b"/v1/%0d%0A\\%2fevil.test", b"/v1", b"", b"/evil.test"),
        (b"/v1//x", b"/v1", b"/base", b"/base/x"),
        (b"/v1/%09x//y", b"/v1", b"", b"/%09x//y"),
        (b"/v1//", b"/v1", b"", b"/"),
        (b"/v1//?//x", b"/v1", b"", b"/?//x"),
        (b"//evil.test/x", b"", b"", b"//evil.test/x"),
        (b"/x%2Fy/?", b"", b"/base", b"/base/x%2Fy/?"),
        (b"/v%31/x", b"/v1", b"", b"/x"),
        (b"/caf%C3%A9/x%20y", "/café".encode(), b"", b"/x%20y"),
        (b"/a%20b/c", b"/a b", b"/d", b"/d/c"),
        (b"/v1..x/.y/...", b"", b"/base", b"/base/v1..x/.y/..."),
        (b"/v11/x", b"/v1", b"", None),
        (b"/V1/x", b"/v1", b"", None),
        (b"/v1/../x", b"/v1", b"", None),
        (b"/v1/%2e%2E/x", b"/v1", b"", None),
        (b"/v1/..%2fx", b"/v1", b"", None),
        (b"/v1/x/.", b"", b"/base", None),
        (b"/v1/..;/x", b"/v1", b"/base", None),
        (b"/v1/..\\x", b"/v1", b"/base", None),
        (b"/v1\\..%5cx", b"", b"/base", None),
    ],
)  # fmt: skip
def test_targets_are_rewritten(target: bytes, prefix: bytes, base: bytes, expected: bytes | None) -> None:
    assert rewrite(target, prefix, base) == expected


@pytest.mark.parametrize(
    ("target", "reference"),
    [
        (b"/st", b"./st/"),
        (b"/a/st?x=1&y", b"./st/?x=1&y"),
        (b"/st?", b"./st/?"),
        (b"/a:b", b"./a:b/"),
        (b'/caf%C3%A9?q=\xc3\xa9"', b"./caf%C3%A9/?q=%C3%A9%22"),
    ],
)
def test_a_slash_is_added_by_a_relative_reference(target: bytes, reference: bytes) -> None:
    assert with_slash(target) == reference


def where_it_ends(target: bytes) -> bytes:
    """Give the file that a careless server would open: everything decoded, parameters dropped, dots resolved."""
    path = unquote_to_bytes(target.partition(b"?")[0]).replace(b"\\", b"/")
    kept: list[bytes] = []
    for segment in path.split(b"/"):
        bare = segment.partition(b";")[0]
        if bare == b"..":
            kept = kept[:-1]
        elif bare not in (b"", b"."):
            kept.append(bare)
    return b"/" + b"/".join(kept)


segments = st.sampled_from([b"a", b"v1", b"..", b".", b"%2e%2e", b".%2E", b"%2e", b"", b"..;x", b"a;..", b"...",
                            b"%2f..", b"..%2f",
                            b"..\\", b"\\..", b"%5c..%5C", b"..%5c..", b"%252e%252e", b"v1%2f..",
                            b"..%3b"])  # fmt: skip


@given(st.lists(segments, max_size=6).map(lambda parts: b"/" + b"/".join(parts)), st.sampled_from([b"", b"/v1",
                                                                                                   b"/a b"]),
       st.sampled_from([b"/base", b"/base/v1"]))  # fmt: skip
def test_no_target_leaves_the_base_path(target: bytes, prefix: bytes, base: bytes) -> None:
    rewritten = rewrite(target, prefix, base)
    if rewritten is not None:
        assert (where_it_ends(rewritten) + b"/").startswith(base + b"/"), rewritten
        assert rewritten.startswith(base)


# --- the response head -----------------------------------------------------------------------------------------------


def answer(status: bytes, *lines: bytes) -> ResponseHead:
    head = parse_response(b"HTTP/1.1 " + status, b"".join(b"\r\n" + line for line in lines))
    assert isinstance(head, ResponseHead)
    return head


def test_what_a_client_is_sent() -> None:
    head = answer(
        b"404 Gone Fishing", b"a: 1", b"Set-Cookie: x", b"set-cookie: y", b"Connection: close", b"X-Request-ID: z"
    )
    assert forward.response_head(head, b"id-1", b"\r\nConnection: close") == (
        b"HTTP/1.1 404 Gone Fishing\r\na: 1\r\nSet-Cookie: x\r\nset-cookie: y\r\nX-Request-ID: id-1\r\n"
        b"Via: 1.1 devhost\r\nConnection: close\r\n\r\n"
    )


def test_an_old_answer_is_passed_on_as_ours() -> None:
    head = parse_response(b"HTTP/1.0 200 OK", b"\r\nA: 1")
    assert isinstance(head, ResponseHead)
    sent_on = forward.response_head(head, b"id-1", b"")
    assert sent_on == b"HTTP/1.1 200 OK\r\nA: 1\r\nX-Request-ID: id-1\r\nVia: 1.0 devhost\r\n\r\n"


def test_interim_answers_pass_as_they_are() -> None:
    head = answer(b"103 Early Hints", b"Link: </a>", b"Link: </b>", b"Connection: x")
    assert forward.informational_head(head) == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n"


@given(st.lists(st.tuples(near_http.names, near_http.values).map(b": ".join), max_size=6), st.integers(200, 599))
def test_every_answer_reads_back(lines: list[bytes], status: int) -> None:
    head = parse_response(b"HTTP/1.1 %d x" % status, b"".join(b"\r\n" + line for line in lines))
    if not isinstance(head, ResponseHead):
        return
    (read,) = llhttp.read_responses(forward.response_head(head, b"id", b""))
    assert read.status == status
    assert [name.lower() for name, _ in read.fields].count(b"x-request-id") == 1
