"""Targets that could not be connected to: how long each is left alone, and who finds out that it is back."""

from devhost_server.upstream.backoff import FIRST_SECONDS, LONGEST_SECONDS, Backoff


def test_nobody_is_left_alone_to_begin_with() -> None:
    backoff: Backoff[str] = Backoff()
    assert not backoff
    assert backoff.due(100.0) == []
    assert backoff.longest_ago(()) is None


def test_a_target_is_probed_once_its_time_is_over_and_by_one_only() -> None:
    backoff: Backoff[str] = Backoff()
    backoff.failed("a", 0.0)
    assert list(backoff) == ["a"]
    assert "a" in backoff
    assert "b" not in backoff
    assert backoff.due(0.9 * FIRST_SECONDS) == []
    assert backoff.due(FIRST_SECONDS) == ["a"]
    assert backoff.due(1000.0) == [], "one probe is under way"
    assert list(backoff) == ["a"], "and until it has ended nothing is sent there"
    backoff.connected("a")
    assert not backoff


def test_each_probe_that_fails_doubles_the_time_up_to_a_bound() -> None:
    backoff: Backoff[str] = Backoff()
    backoff.failed("a", 0.0)
    waited, now = [], 0.0
    for _ in range(6):
        began = now
        while not backoff.due(now):
            now += 0.5
        waited.append(now - began)
        backoff.failed("a", now)
    assert waited == [FIRST_SECONDS, 2.0, 4.0, 8.0, LONGEST_SECONDS, LONGEST_SECONDS]


def test_a_burst_of_refusals_counts_as_one() -> None:
    backoff: Backoff[str] = Backoff()
    for _ in range(50):
        backoff.failed("a", 0.0)
    assert backoff.due(FIRST_SECONDS) == ["a"]


def test_a_success_forgets_what_was_before() -> None:
    backoff: Backoff[str] = Backoff()
    backoff.failed("a", 0.0)
    backoff.due(1.0)
    backoff.failed("a", 1.0)
    backoff.connected("a")
    backoff.failed("a", 10.0)
    assert backoff.due(10.0 + FIRST_SECONDS) == ["a"]


def test_where_all_have_failed_the_one_whose_failure_is_longest_ago_is_first() -> None:
    backoff: Backoff[str] = Backoff()
    for name in "abc":
        backoff.failed(name, 0.0)
    assert backoff.longest_ago(()) == "a"
    assert backoff.longest_ago(("a",)) == "b"
    backoff.failed("a", 0.1)
    assert backoff.longest_ago(()) == "b"
    assert backoff.longest_ago("abc") is None
