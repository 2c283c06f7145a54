"""An upstream's choice of targets, for first tries and retries."""

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest

from devhost_server.exchange import Exchange
from devhost_server.shared.board import Capacity, Scoreboard
from devhost_server.timing.deadlines import Wheel
from devhost_server.upstream.options import RetryOptions, TargetOptions, UpstreamOptions
from devhost_server.upstream.pool import Pool
from devhost_server.upstream.target import Target
from devhost_server.upstream.upstream import Upstream
from tests.support.compiled import needs_source

BOARD = Scoreboard(Capacity(1, 1, 1, 3))
X = Exchange(cast("Any", None), b"GET", b"/", None, 0.0)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield Clock()
    loop.close()
    asyncio.set_event_loop(None)


def upstream_of(clock: Clock, count: int, percent: int = 20) -> tuple[Upstream, list[Target], Wheel]:
    wheel = Wheel(clock)
    targets = tuple(TargetOptions(url=f"http://127.0.0.1:{9 + number}") for number in range(count))
    options = UpstreamOptions(targets=targets, retries=RetryOptions(budget_percent=percent))
    cells = [BOARD.target_at(number) for number in range(count)]
    upstream = Upstream("app", options, wheel, BOARD.row(0), BOARD.upstream_at(0), cells, start=0)
    return upstream, list(upstream.targets), wheel


def test_a_retry_that_the_budget_refuses_spends_nobodys_turn(clock: Clock) -> None:
    upstream, (one, other), _ = upstream_of(clock, 2, percent=0)
    assert upstream.pick(X) is one
    assert upstream.pick_again(X, [one], free=False) is None
    assert upstream.pick(X) is other


def test_what_was_never_sent_costs_no_budget(clock: Clock) -> None:
    upstream, (one, other), _ = upstream_of(clock, 2, percent=0)
    for _ in range(100):
        assert upstream.pick_again(X, [one], free=True) is other


def test_a_retry_goes_to_nobody_twice_and_then_costs_nothing(clock: Clock) -> None:
    upstream, targets, _ = upstream_of(clock, 2)
    for _ in range(100):
        assert upstream.pick_again(X, targets, free=False) is None
    assert upstream.budget.allows


def test_one_that_refused_is_left_alone_while_there_is_another(clock: Clock) -> None:
    upstream, (one, two, three), _ = upstream_of(clock, 3)
    upstream.backoff.failed(one, clock.now)
    assert [upstream.pick(X) for _ in range(4)] == [two, three, two, three]
    assert upstream.pick(X, [two]) is three
    assert upstream.pick(X, [two, three]) is one, "better than nobody"


def test_where_all_refused_they_take_turns_by_their_last_failure(clock: Clock) -> None:
    upstream, (one, other), _ = upstream_of(clock, 2)
    upstream.backoff.failed(other, clock.now)
    upstream.backoff.failed(one, clock.now)
    assert upstream.pick(X) is other
    assert upstream.pick(X, [other]) is one
    assert upstream.pick(X, [one, other]) is None


def test_the_only_target_is_always_tried(clock: Clock) -> None:
    upstream, (only,), _ = upstream_of(clock, 1)
    upstream.backoff.failed(only, clock.now)
    assert upstream.pick(X) is only


@needs_source
def test_it_is_probed_when_its_time_is_over(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[Pool] = []

    def note(pool: Pool) -> None:
        probed.append(pool)

    monkeypatch.setattr(Pool, "probe", note)
    upstream, (one, other), wheel = upstream_of(clock, 2)
    upstream.backoff.failed(one, wheel.now)
    assert upstream.pick(X) is other
    assert probed == []
    clock.now += 1.1
    wheel.turn()
    assert [upstream.pick(X) for _ in range(3)] == [other] * 3, "nobody's request is the probe"
    assert probed == [one.pool]
