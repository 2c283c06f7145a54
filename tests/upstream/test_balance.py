"""Smooth weighted round robin: shares by weight over any run, never a target that is barred."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost_server.upstream.balance import RoundRobin


@dataclass(eq=False)
class Server:
    name: str
    weight: int = 1


def servers(*weights: int) -> list[Server]:
    return [Server(f"s{number}", weight) for number, weight in enumerate(weights)]


def picks(balancer: RoundRobin[Server], count: int) -> list[Server]:
    picked = [balancer.pick() for _ in range(count)]
    return [server for server in picked if server is not None]


weight_lists = st.lists(st.integers(1, 20), min_size=1, max_size=6)


def test_the_example_of_nginx() -> None:
    a, b, c = servers(5, 1, 1)
    assert picks(RoundRobin([a, b, c]), 7) == [a, a, b, a, c, a, a]


@given(weight_lists, st.integers(0, 10), st.integers(0, 100))
def test_every_round_holds_each_its_weight(weights: list[int], start: int, skipped: int) -> None:
    group = servers(*weights)
    balancer = RoundRobin(group, start)
    picks(balancer, skipped)
    assert Counter(picks(balancer, sum(weights))) == {server: server.weight for server in group}


@given(weight_lists, st.integers(0, 150), st.integers(1, 150))
def test_any_run_is_close_to_the_shares(weights: list[int], skipped: int, length: int) -> None:
    group = servers(*weights)
    balancer = RoundRobin(group)
    picks(balancer, skipped)
    counted = Counter(picks(balancer, length))
    for server in group:
        assert abs(counted[server] - length * server.weight / sum(weights)) < len(group)


@given(weight_lists.filter(lambda weights: len(weights) > 1), st.integers(0, 20))
def test_workers_begin_at_different_targets(weights: list[int], start: int) -> None:
    group = servers(*[1] * len(weights))
    assert picks(RoundRobin(group, start), 1) == [group[start % len(group)]]


@given(weight_lists, st.data())
def test_what_is_barred_is_never_picked_and_the_rest_share(weights: list[int], data: st.DataObject) -> None:
    group = servers(*weights)
    balancer = RoundRobin(group)
    picks(balancer, data.draw(st.integers(0, 30)))
    barred = data.draw(st.sets(st.sampled_from(group)))
    left = [server for server in group if server not in barred]
    picked = [balancer.pick(barred) for _ in range(2 * sum(server.weight for server in left) or 1)]
    if not left:
        assert picked == [None]
        return
    assert barred.isdisjoint({server for server in picked if server is not None})
    assert None not in picked


def test_the_shares_come_back_when_nothing_is_barred_any_more() -> None:
    a, b = group = servers(3, 1)
    balancer = RoundRobin(group)
    for _ in range(100):
        assert balancer.pick({a}) is b
    counted = Counter(picks(balancer, 400))
    assert counted[a] == pytest.approx(300, abs=4)
    assert counted[b] == pytest.approx(100, abs=4)


def test_two_equal_ones_take_turns() -> None:
    a, b = group = servers(1, 1)
    assert picks(RoundRobin(group), 5) == [a, b, a, b, a]
    assert picks(RoundRobin(group, start=1), 3) == [b, a, b]
