"""Finding who answers: the route, then the target."""

import random
from collections.abc import Callable
from itertools import cycle
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import pytest

from devhost_server.messages.host import parse_host
from devhost_server.messages.paths import normal_path, remove_dot_segments
from devhost_server.routing import (
    HOST_MEMORY,
    RouteMatch,
    RouteTable,
)
from devhost_server.upstream.balance import RoundRobin
from tests.benchmarks.steps import steps

SIZES: Final = (1, 100, 10_000)
TARGET: Final = b"/v1/items/42?page=2"
Find = Callable[[], str | None]


def no_header(_: bytes) -> bytes | None:
    return None


def by_host(size: int) -> tuple[list[RouteMatch], bytes, str]:
    """Routes that differ by host; a Host in the middle of them, and its route."""
    names = [f"app-{number}" for number in range(size)]
    wanted = names[size // 2]
    return [RouteMatch(name, (f"{name}.localhost",)) for name in names], f"{wanted}.localhost:7777".encode(), wanted


def by_path(size: int) -> tuple[list[RouteMatch], bytes, str]:
    """Routes of one host that differ by path; the one that `TARGET` wants is in the middle of them."""
    paths = [f"/v1/{'items' if number == size // 2 else f'things-{number}'}" for number in range(size)]
    routes = [RouteMatch(path[4:], ("app.localhost",), path) for path in paths]
    return routes, b"app.localhost:7777", "items"


def table(routes: list[RouteMatch], host: bytes) -> Find:
    found: RouteTable[str] = RouteTable([(route, route.name) for route in routes])

    def find() -> str | None:
        levels = found.levels(host)
        return None if levels is None else found.find(levels, TARGET, b"GET", no_header)

    return find


def one_after_another(routes: list[RouteMatch], host: bytes) -> Find:
    """The plain way: the first route whose host and path fit."""

    def find() -> str | None:
        parsed = parse_host(host)
        if parsed is None:
            return None
        name, path = parsed[0].decode(), normal_path(TARGET).decode()
        return next((route.name for route in routes if name in route.hosts and path.startswith(route.path)), None)

    return find


@pytest.mark.parametrize("way", [table, one_after_another])
@pytest.mark.parametrize("size", SIZES, ids="{:,} routes".format)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(by_host, marks=pytest.mark.benchmark(group="a route by its host")),
        pytest.param(by_path, marks=pytest.mark.benchmark(group="a route by its path")),
    ],
)
def test_the_route_of_a_request(benchmark: Any, make: Any, size: int, way: Any) -> None:
    """Looking up host and path in tables saves asking one route after another, and parsing a Host seen before: the
    number of routes does not matter.
    """
    routes, host, wanted = make(size)
    assert benchmark(way(routes, host)) == wanted


@pytest.mark.parametrize("make", [by_host, by_path])
def test_a_lookup_does_not_grow_with_the_routes(make: Any) -> None:
    """The same steps among a hundred routes as among ten thousand, and no more by host than with a single one."""
    counts = {}
    for size in SIZES:
        routes, host, wanted = make(size)
        find = table(routes, host)
        assert find() == wanted  # which makes the host known
        counts[size] = steps(find)
    assert counts[1] == counts[100] == counts[10_000]
    routes, host, _ = make(100)
    plain = one_after_another(routes, host)
    assert steps(plain) > counts[100]  # so that more steps are seen where there are more


# --- hosts and paths -------------------------------------------------------------------------------------------------


@pytest.mark.benchmark(group="a Host value")
@pytest.mark.parametrize("hosts", [1, 2 * HOST_MEMORY], ids=["seen before", "never seen"])
def test_hosts_are_remembered(benchmark: Any, hosts: int) -> None:
    """A Host seen before saves parsing it and going through the wildcards that cover it."""
    routes: RouteTable[str] = RouteTable([(RouteMatch("apps", ("*.localhost",)), "apps")])
    coming = cycle([b"app-%d.localhost:7777" % number for number in range(hosts)])
    levels = benchmark(lambda: routes.levels(next(coming)))
    assert routes.find(levels, TARGET, b"GET", no_header) == "apps"


def every_step(target: bytes) -> bytes:
    path = unquote_to_bytes(target.partition(b"?")[0])
    while b"//" in path:
        path = path.replace(b"//", b"/")
    return remove_dot_segments(path)


@pytest.mark.benchmark(group="the path that routes are compared with")
@pytest.mark.parametrize("normalise", [normal_path, every_step])
def test_a_plain_path_is_left_alone(benchmark: Any, normalise: Callable[[bytes], bytes]) -> None:
    """Asking whether a path has escapes, empty segments or dots saves decoding and resolving one that has none."""
    assert benchmark(normalise, TARGET) == b"/v1/items/42"
    assert normalise(b"/a//b/%2e%2e/c/./d?x=/../") == b"/a/c/d"


# --- targets ---------------------------------------------------------------------------------------------------------


class Weighted:
    def __init__(self, weight: int) -> None:
        self.weight = weight


class Sole:
    """As an upstream with one target keeps it."""

    def __init__(self, targets: list[Weighted]) -> None:
        self.sole = targets[0]

    def pick(self) -> Weighted:
        return self.sole


class Dice:
    """The plain way: by weight, at random."""

    def __init__(self, targets: list[Weighted]) -> None:
        self.targets = targets
        self.weights = [target.weight for target in targets]

    def pick(self) -> Weighted:
        return random.choices(self.targets, self.weights)[0]


@pytest.mark.benchmark(group="the next target")
@pytest.mark.parametrize(
    ("balancer", "count"),
    [(Sole, 1), (RoundRobin, 1), (Dice, 1), (RoundRobin, 8), (Dice, 8)],
    ids=["one, kept", "one, round robin", "one, dice", "eight, round robin", "eight, dice"],
)
def test_the_next_target(benchmark: Any, balancer: Any, count: int) -> None:
    """One target is no choice: keeping it saves the round. Round robin among several saves the dice, and gives exact
    shares; it looks at each target, so it costs more the more there are.
    """
    targets = [Weighted(number + 1) for number in range(count)]
    choice = balancer(targets)
    assert benchmark(choice.pick) in targets
    if balancer is RoundRobin:
        chosen = [choice.pick() for _ in range(sum(target.weight for target in targets))]
        assert [chosen.count(target) for target in targets] == [target.weight for target in targets]
