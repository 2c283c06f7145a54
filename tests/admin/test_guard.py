import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost_server.admin.guard import bind_host, from_another_site, host_allowed, is_loopback, token_matches


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
        ("10.0.0.1", False),
        ("[::2]", False),
        ("0.0.0.0", False),
        ("", False),
        ("localhost:99999", False),
        ("localhost evil.example", False),
        ("user@localhost", False),
        ("2130706433", False),
    ],
)
def test_hosts_that_mean_this_machine(host: str, allowed: bool) -> None:
    assert host_allowed([host], "devbox") is allowed


def test_every_host_field_must_be_allowed_and_none_is() -> None:
    assert host_allowed([], None)
    assert host_allowed(["localhost", "127.0.0.1"], None)
    assert not host_allowed(["localhost", "evil.example"], None)


def test_without_a_bind_no_further_name_is_allowed() -> None:
    assert not host_allowed(["devbox"], None)
    assert not host_allowed([""], None)


@given(st.text(st.characters(max_codepoint=255)))
def test_any_host_is_judged(host: str) -> None:
    assert host_allowed([host], None) in {True, False}


@pytest.mark.parametrize(
    ("bind", "host"),
    [("127.0.0.1:7778", "127.0.0.1"), ("[::1]:7778", "::1"), ("devbox:1", "devbox"), (None, None)],
)
def test_the_binds_own_name(bind: str | None, host: str | None) -> None:
    assert bind_host(bind) == host


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
    assert token_matches(authorization, "s3cret") is matches


@given(st.text(st.characters(max_codepoint=255)))
def test_any_authorization_is_judged(value: str) -> None:
    assert token_matches(value, "s3cret") in {True, False}
