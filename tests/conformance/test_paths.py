"""Paths where a route or a target rewrites them; untouched targets are in the corpus."""

from collections.abc import Iterator
from urllib.parse import urljoin

import pytest

from tests.support import Gateway, ScriptedUpstream
from tests.support.door import WireUnderTest, opened


@pytest.fixture(scope="module")
def joining_gateway(upstream_listener: ScriptedUpstream) -> Iterator[Gateway]:
    """Routes that strip, add, and guard."""
    url = upstream_listener.url
    routes = {
        "strip": {"host": "strip.test", "path": "/api", "strip_prefix": True, "to": url},
        "rebase": {"host": "rebase.test", "path": "/api", "strip_prefix": True, "to": f"{url}/v1/"},
        "base": {"host": "base.test", "to": f"{url}/base"},
        "slash": {"host": "slash.test", "to": f"{url}/base/"},
        "shop": {"host": "shop.test", "path": "/shop", "strip_prefix": True, "slash": "redirect", "to": url},
        "asis": {"host": "shop.test", "path": "/a/as:is", "slash": "redirect", "to": url},
        "rest": {"host": "shop.test", "to": url},
        "guard": {"host": "guard.test", "path": "/admin", "respond": {"status": 403, "body": "guarded"}},
        "open": {"host": "guard.test", "to": url},
    }
    with Gateway({"routes": routes}) as gateway:
        yield gateway


@pytest.fixture
def joining(joining_gateway: Gateway, upstream: ScriptedUpstream) -> Iterator[WireUnderTest]:
    with opened(joining_gateway) as door:
        yield door


@pytest.mark.case("UR-16")
@pytest.mark.parametrize(
    "target",
    ["/api/%2e%2e/admin", "/api/..%2fadmin", "/api/../admin", "/api/..;/admin", "/api/%2e%2e%2fadmin", "/api/./../../x",
     "/api/%2E./admin", "/api/..\\admin", "/api/..%5cadmin", "/api/%252e%252e/admin"],
)  # fmt: skip
def test_no_target_escapes_the_base_path(joining: WireUnderTest, upstream: ScriptedUpstream, target: str) -> None:
    answer = joining.ask(target=target, host="rebase.test")
    if answer.status in {400, 404}:
        assert upstream.requests == []
        return
    assert answer.status == 200
    assert resolved(upstream.only.target).startswith("/v1/"), upstream.only.target


def resolved(target: str) -> str:
    """The path as a server that decodes once and resolves dots would see it."""
    import posixpath
    from urllib.parse import unquote

    path = unquote(target.partition("?")[0], "latin-1").replace("\\", "/")
    segments = [segment.partition(";")[0] for segment in path.split("/")]
    return posixpath.normpath("/".join(segments))


@pytest.mark.case("UR-16")
@pytest.mark.parametrize(
    "target",
    [
        "/admin",
        "/admin/",
        "/admin/x",
        "/x/../admin",
        "/%61dmin",
        "/x/%2e%2e/admin/y",
        "//admin",
        "/./admin",
        "/admin%2fx",
    ],
)
def test_a_guard_decides_on_the_form_the_upstream_will_see(
    joining: WireUnderTest, upstream: ScriptedUpstream, target: str
) -> None:
    answer = joining.ask(target=target, host="guard.test")
    assert answer.status in {403, 400, 404}, answer
    assert upstream.requests == []


@pytest.mark.case("UR-16")
@pytest.mark.parametrize("target", ["/administrator", "/x/admin", "/?/admin", "/adminx/../x"])
def test_a_guard_ends_on_a_segment(joining: WireUnderTest, upstream: ScriptedUpstream, target: str) -> None:
    assert joining.ask(target=target, host="guard.test").status == 200
    assert upstream.only.target == target


@pytest.mark.case("UR-17")
@pytest.mark.parametrize(
    ("host", "target", "seen"),
    [
        ("strip.test", "/api/x?y=1", "/x?y=1"),
        ("strip.test", "/api", "/"),
        ("strip.test", "/api/", "/"),
        ("strip.test", "/api?y", "/?y"),
        ("strip.test", "/api//x", "/x"),
        ("strip.test", "/api/a%2Fb", "/a%2Fb"),
        ("rebase.test", "/api/x?y=1", "/v1/x?y=1"),
        ("rebase.test", "/api", "/v1"),
        ("rebase.test", "/api/", "/v1/"),
        ("base.test", "/x", "/base/x"),
        ("base.test", "/", "/base/"),
        ("base.test", "/x/?", "/base/x/?"),
        ("slash.test", "/x", "/base/x"),
        ("slash.test", "/x?q=/", "/base/x?q=/"),
    ],
)
def test_a_base_path_joins_with_exactly_one_slash(
    joining: WireUnderTest, upstream: ScriptedUpstream, host: str, target: str, seen: str
) -> None:
    assert joining.ask(target=target, host=host).status == 200
    allowed = {seen, "/v1/"} if seen == "/v1" else {seen}
    assert upstream.only.target in allowed


@pytest.mark.case("UR-17")
@pytest.mark.parametrize("target", ["/apix", "/ap", "/", "/API"])
def test_a_prefix_ends_on_a_segment(joining: WireUnderTest, upstream: ScriptedUpstream, target: str) -> None:
    joining.expect_own(joining.ask(target=target, host="strip.test"), 404, "NR")
    assert upstream.requests == []


@pytest.mark.case("UR-80")
@pytest.mark.parametrize(
    "rest",
    ["//evil.test/x", "///evil.test/x", "/%2fevil.test/x", "/%2F/evil.test/x", "/\\evil.test/x", "/%5cevil.test/x",
     "/%5C%2fevil.test/x", "/%09/evil.test/x", "/%0d%0a/evil.test/x"],
)  # fmt: skip
def test_what_remains_of_a_path_begins_with_one_slash(
    joining: WireUnderTest, upstream: ScriptedUpstream, rest: str
) -> None:
    """An application that redirects to its own path, with a slash behind it, must not send anybody to evil.test."""
    assert joining.ask(target="/shop" + rest, host="shop.test").status == 200
    assert upstream.only.target == "/evil.test/x"


@pytest.mark.case("UR-81")
def test_the_application_is_told_what_was_cut_off(
    joining: WireUnderTest, gateway: WireUnderTest, upstream: ScriptedUpstream
) -> None:
    joining.ask(target="/shop/x", host="shop.test", headers={"X-Forwarded-Prefix": "/forged"})
    joining.ask(target="/x", host="shop.test", headers={"X-Forwarded-Prefix": "/forged"})
    assert [each.headers.all("x-forwarded-prefix") for each in upstream.requests] == [["/shop"], []]


@pytest.mark.case("UR-81")
@pytest.mark.parametrize(
    ("theirs", "both"), [("/outer", "/outer/shop"), ("/outer/", "/outer/shop"), ("//evil", "/shop")]
)
def test_a_prefix_of_a_trusted_peer_comes_before_ours(upstream: ScriptedUpstream, theirs: str, both: str) -> None:
    routes = {"shop": {"host": "*", "path": "/shop", "strip_prefix": True, "to": upstream.url}}
    with (
        Gateway({"server": {"trusted_proxies": ["127.0.0.1"]}, "routes": routes}) as trusting,
        opened(trusting) as door,
    ):
        door.ask(target="/shop/x", headers={"X-Forwarded-Prefix": theirs})
        door.ask(target="/shop/x")
    assert [each.headers.all("x-forwarded-prefix") for each in upstream.requests] == [[both], ["/shop"]]


@pytest.mark.case("UR-82")
@pytest.mark.parametrize(
    ("method", "target", "location"),
    [
        ("GET", "/shop", "./shop/"),
        ("GET", "/shop?a=1&b", "./shop/?a=1&b"),
        ("HEAD", "/shop", "./shop/"),
        ("POST", "/shop?", "./shop/?"),
        ("GET", "/a/as:is", "./as:is/"),
    ],
)
def test_a_path_without_its_slash_is_redirected(
    joining: WireUnderTest, upstream: ScriptedUpstream, method: str, target: str, location: str
) -> None:
    answer = joining.ask(method, target, host="shop.test", body=b"x" if method == "POST" else None)
    assert (answer.status, answer.headers["Location"]) == (308, location)
    assert answer.headers["X-Request-ID"]
    assert urljoin("https://pub.test/outer" + target, location).startswith("https://pub.test/outer" + target[:5])
    assert upstream.requests == []
    entry = joining.entry(answer)
    assert (entry["status"], entry["flag"]) == (308, None)


@pytest.mark.case("UR-82")
@pytest.mark.parametrize("target", ["/shop/", "/shop/x", "/shopping", "/a", "/a/as:is/"])
def test_other_paths_are_not(joining: WireUnderTest, upstream: ScriptedUpstream, target: str) -> None:
    assert joining.ask(target=target, host="shop.test").status == 200


# --- paths that servers read differently -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict_gateway(upstream_listener: ScriptedUpstream) -> Iterator[Gateway]:
    """A guard and something open, with strict paths."""
    url = upstream_listener.url
    routes = {
        "guard": {"host": "guard.test", "path": "/admin", "respond": {"status": 403, "body": "guarded"}},
        "open": {"host": "guard.test", "to": url},
        "closed": {"host": "public.test", "respond": {"status": 403, "body": "guarded"}},
        "public": {"host": "public.test", "path": "/public", "to": url},
    }
    with Gateway({"server": {"paths": "strict"}, "routes": routes}) as gateway:
        yield gateway


@pytest.fixture
def strict(strict_gateway: Gateway, upstream: ScriptedUpstream) -> Iterator[WireUnderTest]:
    with opened(strict_gateway) as door:
        yield door


@pytest.mark.case("UR-83")
@pytest.mark.parametrize(
    "target",
    ["/x/..;/admin", "/x/..;v=1/admin", "/x/.;/admin", "/..;", "/x%5c..%5cadmin", "/x%5C..%5Cadmin", "/x\\..\\admin",
     "/admin%00", "/admin%00.png", "/%2e%2e;/admin", "/x/..%3b/admin", "/x/%252e%252e/admin", "/x/..%252fadmin",
     "/x/%c0%ae%c0%ae/admin", "/x%255c..%255cadmin", "http://guard.test/x/..;/admin"],
)  # fmt: skip
def test_strict_paths_refuse_what_some_server_folds(
    strict: WireUnderTest, upstream: ScriptedUpstream, target: str
) -> None:
    for _ in range(2):  # what was refused once is not remembered as sound
        strict.expect_refused(strict.send(target=target, host="guard.test"))
    assert upstream.requests == []


@pytest.mark.case("UR-83")
@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("guard.test", "/admin;x"),
        ("guard.test", "/admin;x/y"),
        ("guard.test", "/admin%3bx"),
        ("guard.test", "/admin;x%2f..%2fy"),
        ("guard.test", "/admin//../x"),
        ("guard.test", "/admin/..%2fx"),
        ("guard.test", "/%2561dmin"),
        ("public.test", "/public/..%2fsecret"),
        ("public.test", "/secret/..%2fpublic"),
        ("public.test", "/public;%2f..%2fsecret"),
    ],
)
def test_what_another_server_takes_elsewhere_reaches_nobody(
    strict: WireUnderTest, upstream: ScriptedUpstream, host: str, target: str
) -> None:
    assert strict.ask(target=target, host=host).status in {400, 403}
    assert upstream.requests == []


@pytest.mark.case("UR-83")
@pytest.mark.parametrize(
    "target",
    ["/a;v=1/b;w=2", "/a%2Fb", "/group%2Fproject/x", "/a;jsessionid=1%2F2?x=..;", "/x?y=\\", "/100%25",
     "/caf%C3%A9/%E9",
     "//x", "/x/../y", "/...;x", "/.well-known/x"],
)  # fmt: skip
def test_strict_paths_pass_what_is_ordinary(strict: WireUnderTest, upstream: ScriptedUpstream, target: str) -> None:
    assert strict.ask(target=target, host="guard.test").status == 200
    assert upstream.only.target == target


@pytest.mark.case("UR-83")
@pytest.mark.parametrize("target", ["/x/..;/y", "/x%5c..%5cy", "/x\\y", "/y%00"])
def test_otherwise_they_pass(joining: WireUnderTest, upstream: ScriptedUpstream, target: str) -> None:
    assert joining.ask(target=target, host="guard.test").status == 200
    assert upstream.only.target == target


@pytest.mark.case("UR-83")
@pytest.mark.parametrize("target", ["/admin;x", "/admin;x/y", "/admin%3bx"])
def test_parameters_never_hide_a_segment_from_its_route(
    joining: WireUnderTest, upstream: ScriptedUpstream, target: str
) -> None:
    assert joining.ask(target=target, host="guard.test").status == 403
    assert upstream.requests == []


def test_strict_paths_hold_for_open_connections_after_a_reload(upstream: ScriptedUpstream) -> None:
    config = {"routes": {"wire": {"host": "*", "to": upstream.url}}}
    with Gateway(config) as gateway, opened(gateway) as door:
        client = door.connect()
        client.send(door.request(target="/x/..;/y"))
        assert client.read_response().status == 200
        gateway.write_config(config | {"server": {"paths": "strict"}})
        gateway.reload()
        client.send(door.request(target="/x/..;/y"))
        assert client.read_response().status == 400
