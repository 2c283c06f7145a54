import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost_server.admin.guard import (
    Holder,
    Keys,
    actor,
    from_another_site,
    host_allowed,
    is_local,
    is_loopback,
    own_names,
)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("LocalHost:7778", True),
        ("localhost.:7778", True),
        ("admin.localhost:7778", True),
        ("127.0.0.1", True),
        ("127.0.0.1:7778", True),
        ("127.9.8.7", True),
        ("[::1]:7778", True),
        ("[::ffff:127.0.0.1]", True),
        ("devbox:7778", True),
        ("DEVBOX", True),
        ("evil.example", False),
        ("evil.example:7778", False),
        ("localhost.evil.example", False),
        ("evillocalhost", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1evil", False),
        ("10.0.0.1", True),
        ("10.0.0.1:7778", True),
        ("[::2]", True),
        ("[2001:db8::1]:7778", True),
        ("0.0.0.0", True),
        ("gateway.example:7778", True),
        ("sub.gateway.example", False),
        ("", False),
        ("localhost:99999", False),
        ("localhost evil.example", False),
        ("user@localhost", False),
        ("2130706433", False),
    ],
)
def test_hosts_that_mean_this_machine(host: str, allowed: bool) -> None:
    assert host_allowed([host], {"devbox", "gateway.example"}, is_local=True) is allowed


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("localhost", False), ("admin.localhost", False), ("127.0.0.1", True), ("devbox", True), ("evil.example", False)],
)
def test_from_another_machine_localhost_is_no_name(host: str, allowed: bool) -> None:
    assert host_allowed([host], {"devbox"}, is_local=False) is allowed


@pytest.mark.parametrize(
    ("server", "local"),
    [
        (None, True),
        (("/run/admin.sock", None), True),
        (("127.0.0.1", 7778), True),
        (("127.8.9.10", 7778), True),
        (("::1", 7778), True),
        (("::ffff:127.0.0.1", 7778), True),
        (("10.0.0.5", 7778), False),
        (("2001:db8::1", 7778), False),
    ],
)
def test_connections_from_this_machine(server: tuple[str, int | None] | None, local: bool) -> None:
    assert is_local(server) is local


def test_every_host_field_must_be_allowed_and_none_is() -> None:
    assert host_allowed([], (), is_local=False)
    assert host_allowed(["localhost", "127.0.0.1"], (), is_local=True)
    assert not host_allowed(["localhost", "evil.example"], (), is_local=True)
    assert not host_allowed([""], (), is_local=True)


@given(st.text(st.characters(max_codepoint=255)))
def test_any_host_is_judged(host: str) -> None:
    assert host_allowed([host], (), is_local=True) in {True, False}


@pytest.mark.parametrize(
    ("bind", "hosts", "names"),
    [
        ("127.0.0.1:7778", (), {"127.0.0.1"}),
        ("devbox:1", ("gw.example",), {"devbox", "gw.example"}),
        ("unix:/run/admin.sock", ("gw.example",), {"gw.example"}),
        (None, (), set()),
    ],
)
def test_the_names_of_a_listener(bind: str | None, hosts: tuple[str, ...], names: set[str]) -> None:
    assert own_names(bind, hosts) == names


@pytest.mark.parametrize(
    ("family", "address", "loopback"),
    [(socket.AF_INET, "127.0.0.1", True), (socket.AF_INET, "0.0.0.0", False), (socket.AF_INET6, "::1", True)],
)
def test_listeners_on_loopback(family: int, address: str, loopback: bool) -> None:
    with socket.create_server((address, 0), family=family) as listener:
        assert is_loopback(listener) is loopback


def test_a_unix_socket_is_no_matter_of_names(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "admin.sock"))
        assert not is_loopback(listener)


@pytest.mark.parametrize(
    ("fetch_site", "origin", "foreign"),
    [
        (None, None, False),
        ("same-origin", "http://127.0.0.1:7778", False),
        ("none", None, False),
        ("cross-site", None, True),
        ("same-site", "http://evil.localhost", True),
        ("cross-site", "http://127.0.0.1:7778", True),
        ("", None, True),
        (None, "http://127.0.0.1:7778", False),
        (None, "http://127.0.0.1", True),
        (None, "http://evil.example", True),
        (None, "null", True),
    ],
)
def test_requests_that_another_sites_page_has_caused(fetch_site: str | None, origin: str | None, foreign: bool) -> None:
    assert from_another_site(fetch_site, origin, "127.0.0.1:7778") is foreign


@pytest.mark.parametrize(
    ("authorization", "matches"),
    [
        ("Bearer s3cret", True),
        ("bearer s3cret", True),
        ("BEARER  s3cret ", True),
        (None, False),
        ("", False),
        ("Bearer", False),
        ("Bearer ", False),
        ("Bearer s3cre", False),
        ("Bearer s3cret2", False),
        ("Bearer S3CRET", False),
        ("Basic s3cret", False),
        ("s3cret", False),
        ("Bearer s3cr\xe9t", False),
    ],
)
def test_tokens(authorization: str | None, matches: bool) -> None:
    assert Keys.of("s3cret").holder(authorization) == (Holder(None) if matches else None)


def test_each_token_has_its_owner_and_none_is_kept() -> None:
    keys = Keys.of("s3cret", {"alice": "a-token", "bob": "b-token"})
    assert keys.holder("Bearer s3cret") == Holder(None)
    assert keys.holder("Bearer a-token") == Holder("alice")
    assert keys.holder("Bearer b-token") == Holder("bob")
    assert keys.holder("Bearer c-token") is None
    assert "token" not in repr(keys)
    assert b"s3cret" not in b"".join(digest for digest, _ in keys.holders)


def test_without_tokens_nothing_opens() -> None:
    assert not Keys.of(None)
    assert Keys.of(None).holder("Bearer ") is None
    assert bool(Keys.of(None, {"alice": "a-token"}))


@given(st.text(st.characters(max_codepoint=255)))
def test_any_authorization_is_judged(value: str) -> None:
    assert Keys.of("s3cret").holder(value) in {None, Holder(None)}


@pytest.mark.parametrize(
    ("holder", "named", "who"),
    [
        (Holder("alice"), "mallory", "alice"),
        (Holder(None), "ci", "ci"),
        (None, " ci ", "ci"),
        (Holder(None), None, "10.0.0.7"),
        (None, "", "10.0.0.7"),
        (None, "x" * 65, "10.0.0.7"),
        (None, "two\nlines", "10.0.0.7"),
        (None, "\x1b[2J", "10.0.0.7"),
    ],
)
def test_who_has_changed_something(holder: Holder | None, named: str | None, who: str) -> None:
    assert actor(holder, named, "10.0.0.7") == who
