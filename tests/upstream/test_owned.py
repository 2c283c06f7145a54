"""Which private connections make room, by a clock of the test's own."""

from typing import Any

from devhost_server.messages.reuse import Reason
from devhost_server.upstream.owned import KEPT_SECONDS, Owned


class Double:
    """What is looked at of a connection."""

    def __init__(self, reasons: int) -> None:
        self.reasons = reasons


def challenged() -> Any:
    return Double(Reason.CHALLENGE)


def authenticated() -> Any:
    return Double(Reason.CHALLENGE | Reason.CREDENTIALS)


def test_a_client_that_was_only_challenged_makes_room_first() -> None:
    owned = Owned()
    mine, asked = authenticated(), challenged()
    owned.add(mine, 10.0)
    owned.add(asked, 11.0)
    assert owned.take_spare(11.0) is asked
    assert owned.take_spare(11.0) is None
    assert len(owned) == 1


def test_who_has_authenticated_keeps_the_connection_for_a_while() -> None:
    owned = Owned()
    first, second = authenticated(), authenticated()
    owned.add(first, 10.0)
    owned.add(second, 11.0)
    assert owned.take_spare(10.0 + KEPT_SECONDS - 0.1) is None
    assert owned.take_spare(10.0 + KEPT_SECONDS + 0.1) is first
    assert owned.take_spare(10.0 + KEPT_SECONDS + 0.1) is None
    owned.forget(second)
    assert owned.take_spare(100.0) is None
    assert len(owned) == 0
