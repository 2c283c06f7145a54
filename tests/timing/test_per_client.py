"""Counts by client: what is one client, and nothing kept of those who left."""

import pytest

from devhost_server.timing.per_client import PerClient, client_key


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b"192.0.2.1", b"192.0.2.1", True),
        (b"192.0.2.1", b"192.0.2.2", False),
        (b"2001:db8:1:2::1", b"2001:db8:1:2:ffff::9", True),
        (b"2001:db8:1:2::1", b"2001:db8:1:3::1", False),
    ],
)
def test_what_is_one_client(one: bytes, other: bytes, same: bool) -> None:
    assert (client_key(one) == client_key(other)) is same


def test_each_has_its_own_limit_and_gets_room_back() -> None:
    counts = PerClient()
    counts.most = 2
    keys = [counts.enter(b"192.0.2.1"), counts.enter(b"192.0.2.1")]
    assert counts.enter(b"192.0.2.1") is None
    assert counts.enter(b"192.0.2.2") is not None
    assert keys[0] is not None
    counts.leave(keys[0])
    assert counts.enter(b"192.0.2.1") is not None


def test_nothing_is_kept_of_clients_that_left() -> None:
    counts = PerClient()
    for number in range(100_000):
        key = counts.enter(b"2001:db8:%x:%x::1" % divmod(number, 65536))
        assert key is not None
        counts.leave(key)
    assert len(counts) == 0
