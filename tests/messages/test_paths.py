"""How paths are read: the normal form, and what other servers may make of them.

The servers below are models: what is written down of a kind of server, as careless as any of its kind has been.
"""

import re
import time
from collections.abc import Callable
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from devhost_server.messages.paths import normal_path, other_readings, remove_dot_segments, strict_flaw
from devhost_server.routing import RouteMatch, RouteTable

targets = st.lists(
    st.sampled_from([b"a", b"a;b", b"..;", b";", b"..", b".", b"", b"%2e", b"%2E.", b"%2f", b"..%2f", b"%41", b"%25",
                     b"b?", b"...", b"%zz", b"\xff"]),
    max_size=8,
).map(lambda parts: b"/" + b"/".join(parts))  # fmt: skip


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/", b"/"),
        (b"/a/b/", b"/a/b/"),
        (b"/a?/../b", b"/a"),
        (b"/a/./b/..", b"/a/"),
        (b"/../../a", b"/a"),
        (b"/a%2Fb", b"/a/b"),
        (b"/%2e%2e/a", b"/a"),
        (b"//a///b", b"/a/b"),
        (b"/a/..//b", b"/b"),
        (b"/%252e", b"/%2e"),
        (b"/a;v=1/b;w", b"/a/b"),
        (b"/a%3bv/b", b"/a/b"),
        (b"/a/;x/b", b"/a/b"),
        (b"/a/..;/b", b"/a/..;/b"),
        (b"/a/.;x;y/b", b"/a/.;x/b"),
        (b"/a;x/../b", b"/b"),
        (b"/.a/..b/...", b"/.a/..b/..."),
        (b"/a/.", b"/a/"),
        (b"*", b"*"),
    ],
)
def test_normal_paths(target: bytes, expected: bytes) -> None:
    assert normal_path(target) == expected


@given(targets)
def test_a_normal_path_is_its_own_normal_path(target: bytes) -> None:
    path = normal_path(target)
    assert path.startswith(b"/")
    assert not {b".", b".."} & set(path.split(b"/"))
    assert b"//" not in path
    # Written as a target again, so that what had been decoded is not decoded twice.
    assert normal_path(quote_from_bytes(path).encode()) == path


@given(targets)
def test_removing_dot_segments_is_idempotent(path: bytes) -> None:
    once = remove_dot_segments(path)
    assert remove_dot_segments(once) == once


# --- the same path, read by others -----------------------------------------------------------------------------------

PARAMETERS = re.compile(rb";[^/]*")
SLASHES = re.compile(rb"/+")


def resolved(path: bytes) -> bytes:
    """Slashes merged, then dot segments resolved."""
    return remove_dot_segments(SLASHES.sub(b"/", path))


def like_tomcat(path: bytes) -> bytes:
    """Parameters are cut off before anything is decoded; a backslash is a slash."""
    return resolved(unquote_to_bytes(PARAMETERS.sub(b"", path)).replace(b"\\", b"/"))


def like_jetty(path: bytes) -> bytes:
    """Parameters are cut off what has been decoded."""
    return resolved(PARAMETERS.sub(b"", unquote_to_bytes(path)))


def like_old_php(path: bytes) -> bytes:
    """A C string: it ends at NUL."""
    return resolved(unquote_to_bytes(path).partition(b"\0")[0])


def like_iis(path: bytes) -> bytes:
    """Decoded by two modules one after the other; a backslash is a slash; longer forms of UTF-8 are read."""
    twice = unquote_to_bytes(unquote_to_bytes(path)).replace(b"\xc0\xaf", b"/").replace(b"\xc1\x9c", b"\\")
    return resolved(twice.replace(b"\\", b"/"))


def like_nginx(path: bytes) -> bytes:
    """Decoded once, slashes merged, dots resolved."""
    return resolved(unquote_to_bytes(path))


def like_java_net(path: bytes) -> bytes:
    """Dots are resolved as RFC 3986 has it, where an empty segment is one too."""
    return remove_dot_segments(unquote_to_bytes(path))


def like_flask(path: bytes) -> bytes:
    """Decoded and matched as it is: nobody resolves dots."""
    return SLASHES.sub(b"/", unquote_to_bytes(path))


def like_express(path: bytes) -> bytes:
    """Segments are split first and decoded later, so that an escaped slash is none."""
    return SLASHES.sub(b"/", b"/".join(unquote_to_bytes(part).replace(b"/", b"|") for part in path.split(b"/")))


SERVERS: tuple[Callable[[bytes], bytes], ...] = (
    like_tomcat, like_jetty, like_old_php, like_iis, like_nginx, like_java_net, like_flask, like_express,
)  # fmt: skip

GUARDED: RouteTable[str] = RouteTable(
    [(RouteMatch("guard", ("*",), "/admin"), "guard"), (RouteMatch("open", ("*",)), "open")]
)
PUBLISHED: RouteTable[str] = RouteTable(
    [(RouteMatch("open", ("*",), "/public"), "open"), (RouteMatch("guard", ("*",)), "guard")]
)


def answered_by(table: RouteTable[str], target: bytes) -> str | None:
    """Return the route that a gateway with strict paths gives a request to; None if it refuses it."""
    levels = table.levels(b"a.test")
    assert levels is not None
    if strict_flaw(target) or table.is_disputed(levels, target, b"GET", lambda _: None):
        return None
    return table.find(levels, target, b"GET", lambda _: None)


def under(path: bytes, prefix: bytes) -> bool:
    return path == prefix or path.startswith(prefix + b"/")


odd_targets = st.lists(
    st.sampled_from(
        [b"admin", b"public", b"secret", b"a", b"..", b".", b"", b"%2e%2e", b"..;", b"..;x", b";", b"admin;x",
         b"public;x", b"a%2f", b"%2f..", b"..%2f", b"%5c", b"\\", b"..\\", b"..%5c", b"%00", b"admin%00", b"%252e%252e",
         b"%252f", b"..%252f", b"..%3b", b"admin%3bx", b";x%2f..%2fadmin", b"admin;x%2f..", b"%61dmin", b"%2561dmin",
         b"%252561dmin", b"..%c0%af", b"%c0%ae%c0%ae", b".;", b"x%2f..%2f..", b"secret;%2f..", b"%2esecret", b";%2f"]
    ),
    min_size=1,
    max_size=6,
).map(lambda parts: b"/" + b"/".join(parts))  # fmt: skip


@settings(max_examples=500)
@given(odd_targets)
@example(b"/admin;x")
@example(b"/x/..;/admin")
@example(b"/x%5c..%5cadmin")
@example(b"/admin%00")
@example(b"/admin;x%2f..%2fy")
@example(b"/admin//../x")
@example(b"/admin/..%2fx")
@example(b"/%2561dmin")
@example(b"/%2561dmin/;/..")
def test_what_passes_a_guard_is_not_behind_it_for_any_server(target: bytes) -> None:
    if answered_by(GUARDED, target) == "open":
        assert [server for server in SERVERS if under(server(target), b"/admin")] == [], target


@settings(max_examples=500)
@given(odd_targets)
@example(b"/public/..;/secret")
@example(b"/public/..%2fsecret")
@example(b"/secret/..%2fpublic")
@example(b"/public//../secret")
@example(b"/public;%2f..%2fsecret")
@example(b"/public%5c..%5csecret")
@example(b"/./secret;x%2f../%3b%2f/secret%2f..%2f..%2fpublic")
def test_what_is_published_is_nothing_else_for_any_server(target: bytes) -> None:
    if answered_by(PUBLISHED, target) == "open":
        assert [server for server in SERVERS if under(server(target), b"/secret")] == [], target


@pytest.mark.parametrize(
    "target",
    [b"/", b"/a;v=1/b;w=2", b"/a%2Fb", b"/group%2Fproject?ref=..;", b"/x/../y", b"/%2e/y", b"/caf%C3%A9/%E9",
     b"/100%25", b"/a%20b", b"/...;x", b"/?x=\\", b"*", b"/a;jsessionid=1%2F2", b"//a", b"/%zz", b"/a%252Fb"],
)  # fmt: skip
def test_ordinary_paths_pass(target: bytes) -> None:
    assert not strict_flaw(target)
    assert answered_by(GUARDED, target) == "open"


@pytest.mark.parametrize(
    "target",
    [b"/..;", b"/a/..;/b", b"/a/.;x/b", b"/a\\b", b"/a%5cb", b"/a%5Cb", b"/a%00", b"/..%3b/a", b"/%2e%2e;/a",
     b"/.%2e%3B", b"/a%255cb", b"/a%2500", b"/%252e%252e/a", b"/a/%25252e%25252e/b", b"/..%252fa", b"/%c0%ae%c0%ae/a",
     b"/..%c0%af"],
)  # fmt: skip
def test_what_some_server_folds_is_a_flaw(target: bytes) -> None:
    assert strict_flaw(target)
    assert strict_flaw(target + b"?q")


@pytest.mark.parametrize(
    "target", [b"/admin;x", b"/admin;x/y", b"/admin%3bx", b"/admin%2Fx", b"//admin", b"/x/../admin"]
)
def test_a_guard_is_met_with_parameters_too(target: bytes) -> None:
    levels = GUARDED.levels(b"a.test")
    assert levels is not None
    assert GUARDED.find(levels, target, b"GET", lambda _: None) == "guard"
    assert answered_by(GUARDED, target) in {"guard", None}


@pytest.mark.parametrize("target", [b"/a/b;c", b"/a.b/c", b"/a%20b", b"/a%2Fb", b"/a?b=/../%2e", b"/.well-known/x"])
def test_an_ordinary_path_has_one_reading(target: bytes) -> None:
    assert not other_readings(target)


@pytest.mark.parametrize(
    "piece", [b"/..;", b"/.", b"/..", b";", b"%25", b"%2e", b"%252525", b"/%2e%2e", b"\\", b"%", b"/a;b%2f", b"%c0"]
)
def test_reading_a_path_is_linear(piece: bytes) -> None:
    """A target of 256 KiB, four times the longest that a head can hold, in what a busy machine has time for."""
    target = b"/" + piece * (2**18 // len(piece))
    began = time.process_time()
    normal_path(target), strict_flaw(target), other_readings(target)
    assert time.process_time() - began < 3
