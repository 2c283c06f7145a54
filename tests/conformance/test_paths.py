"""Paths where a route or a target rewrites them; untouched targets are in the corpus."""

from collections.abc import Iterator

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
        ("strip.test", "/api//x", "//x"),
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
