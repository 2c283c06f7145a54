"""How fast a body has to move: grace, credit up to a bound, and no time while it is somebody else's turn."""

from devhost_server.timing.deadlines import NEVER
from devhost_server.timing.pace import GRACE_SECONDS, Pace


def test_nothing_at_all_is_too_slow_after_the_grace() -> None:
    assert Pace(100.0, 240, 30.0).due == 100.0 + GRACE_SECONDS


def test_a_body_at_the_rate_is_never_too_slow() -> None:
    pace = Pace(0.0, 240, 30.0)
    for second in range(1, 1000):
        assert second < pace.due
        pace.moved(240, float(second))


def test_a_byte_a_second_is() -> None:
    pace, now = Pace(0.0, 240, 30.0), 0.0
    while now < pace.due:
        now += 1
        pace.moved(1, now)
    assert GRACE_SECONDS < now < GRACE_SECONDS + 2


def test_who_moved_much_may_pause_but_not_for_ever() -> None:
    pace = Pace(0.0, 240, 30.0)
    pace.moved(1 << 30, 10.0)
    assert pace.due == 40.0


def test_time_in_which_it_is_held_up_does_not_count() -> None:
    pace = Pace(0.0, 240, 30.0, total=60.0)
    pace.stop(2.0)
    pace.go(102.0)
    assert (pace.due, pace.until) == (GRACE_SECONDS + 100.0, 160.0)


def test_without_a_rate_nothing_is_too_slow() -> None:
    pace = Pace(0.0, None, 30.0)
    pace.moved(1, 29.0)
    assert (pace.due, pace.until) == (NEVER, NEVER)
