"""Signs of life, by clocks that the tests turn."""

import pytest

from devhost_server.processes.liveness import Patience, Watchdog


def test_silence_is_counted_from_the_last_sign() -> None:
    patience = Patience(30, now=0)
    for now in range(1, 40):
        assert patience.look(now) == 0
    assert not patience.is_over(last_sign=9.5, now=39)
    assert patience.is_over(last_sign=8.5, now=39)
    assert patience.silence(last_sign=9, now=39) == 30


def test_whoever_was_asleep_has_not_been_kept_waiting() -> None:
    patience = Patience(30, now=0)
    assert patience.look(1) == 0
    assert patience.look(1000) == 999
    assert not patience.is_over(last_sign=1, now=1000)
    assert not patience.is_over(last_sign=1, now=1029)
    assert patience.is_over(last_sign=1, now=1031)


@pytest.mark.parametrize(("seconds", "gap"), [(30, 7.5), (2, 1.0)])
def test_a_short_absence_forgives_nothing(seconds: float, gap: float) -> None:
    patience = Patience(seconds, now=0)
    assert patience.look(gap - 0.01) == 0
    assert patience.is_over(last_sign=0, now=seconds + 0.01)


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "42"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "41"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": ""}, None),
    ],
)
def test_the_watchdog_that_systemd_asks_for(environ: dict[str, str], interval: float | None) -> None:
    watchdog = Watchdog.of(environ, 42, now=0)
    assert (watchdog and watchdog.interval) == interval


def test_a_sign_twice_in_the_time_allowed() -> None:
    watchdog = Watchdog(10, now=100)
    given = [now for now in range(100, 130) if watchdog.is_due(now)]
    assert given == [100, 105, 110, 115, 120, 125]
