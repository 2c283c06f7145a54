"""Routing against a slow and obviously correct reference: try every route, sort by the contract's order."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from devhost_server.routing import (
    Ambiguity,
    RouteMatch,
    RouteTable,
    ambiguities,
)

LABELS = ["a", "b", "localhost"]
METHODS = ["GET", "POST"]
HEADERS = [("x-team", "blue"), ("x-team", "red"), ("x-user", "me")]


@dataclass(frozen=True)
class Request:
    host: str
    path: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()

    def header(self, name: bytes) -> bytes | None:
        return next((value.encode() for key, value in self.headers if key.encode() == name), None)


# --- the reference ---------------------------------------------------------------------------------------------------


def host_rank(pattern: str, host: str) -> tuple[int, int, int] | None:
    """How specific a host pattern is for a host it covers; None if it does not."""
    if pattern == "*":
        return (0, 0, 0)
    if not pattern.startswith("*"):
        return (2, 0, 0) if pattern == host else None
    stars, _, suffix = pattern.partition(".")
    if not host.endswith("." + suffix):
        return None
    more = host[: -len(suffix) - 1].split(".")
    if stars == "*" and len(more) != 1:
        return None
    return (1, len(suffix), len(stars) == 1)


def satisfies(match: RouteMatch, request: Request) -> bool:
    path = match.path.rstrip("/")
    return (
        (request.path == path or request.path.startswith(path + "/"))
        and (not match.methods or request.method in match.methods)
        and all(dict(request.headers).get(name) == value for name, value in match.headers)
    )


def ranked(matches: list[RouteMatch], request: Request) -> list[tuple[tuple[object, ...], str]]:
    """Every route that answers the request, with its rank, best first."""
    found = []
    for match in matches:
        ranks = [rank for rank in (host_rank(pattern, request.host) for pattern in match.hosts) if rank is not None]
        if ranks and satisfies(match, request):
            conditions = len(match.headers) + bool(match.methods)
            found.append(((max(ranks), len(match.path.rstrip("/")), conditions), match.name))
    return sorted(found, reverse=True)


# --- what is generated -----------------------------------------------------------------------------------------------

hosts = st.lists(st.sampled_from(LABELS), min_size=1, max_size=4).map(".".join)
patterns = st.one_of(st.just("*"), hosts, hosts.map(lambda host: "*." + host), hosts.map(lambda host: "**." + host))
paths = st.lists(st.sampled_from(["v1", "v", "v11", "x"]), max_size=3).map(lambda parts: "/" + "/".join(parts))
header_sets = st.lists(st.sampled_from(HEADERS), max_size=2, unique_by=lambda header: header[0]).map(tuple)


@st.composite
def tables(draw: st.DrawFn, most: int = 6) -> list[RouteMatch]:
    """Routes that are close to each other: they share few hosts and paths, and differ in their conditions."""
    some_hosts = st.sampled_from(draw(st.lists(patterns, min_size=1, max_size=3)))
    some_paths = st.sampled_from(draw(st.lists(paths, min_size=1, max_size=2)))
    return [
        RouteMatch(
            f"r{number}",
            tuple(draw(st.lists(some_hosts, min_size=1, max_size=2, unique=True))),
            draw(some_paths),
            draw(st.sampled_from([frozenset(), frozenset({"GET"}), frozenset({"POST"}), frozenset(METHODS)])),
            draw(header_sets),
        )
        for number in range(draw(st.integers(1, most)))
    ]


def every_request(matches: list[RouteMatch]) -> list[Request]:
    """Requests enough to tell apart whatever these routes tell apart."""
    names = {pattern.lstrip("*").lstrip(".") for match in matches for pattern in match.hosts} - {""}
    asked = [prefix + name for name in sorted(names) for prefix in ("", "z.", "y.z.")] + ["elsewhere"]
    headers = [(), *((header,) for header in HEADERS), *itertools.combinations(HEADERS, 2)]
    return [
        Request(host, path, method, tuple(chosen))
        for host in asked
        for path in sorted({match.path for match in matches} | {matches[0].path.rstrip("/") + "/more"})
        for method in (*METHODS, "PUT")
        for chosen in headers
        if len(dict(chosen)) == len(chosen)
    ]


def found_in(table: RouteTable[str], request: Request) -> str | None:
    levels = table.levels(request.host.encode())
    assert levels is not None
    return table.find(levels, request.path.encode() + b"?q=/../x", request.method.encode(), request.header)


@settings(max_examples=150)
@given(tables(), st.data())
def test_the_most_specific_route_wins(matches: list[RouteMatch], data: st.DataObject) -> None:
    table = RouteTable((match, match.name) for match in matches)
    for request in data.draw(st.lists(st.sampled_from(every_request(matches)), min_size=5, max_size=15)):
        answers = ranked(matches, request)
        best = {name for rank, name in answers if rank == answers[0][0]}
        found = found_in(table, request)
        assert found in best if answers else found is None


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_order_of_the_configuration_decides_nothing(order: tuple[int, ...]) -> None:
    routes = [
        RouteMatch("plain", ("h",), "/v1"),
        RouteMatch("get", ("h",), "/v1", frozenset({"GET"})),
        RouteMatch("both", ("h",), "/v1", frozenset({"GET"}), (("x-team", "blue"),)),
        RouteMatch("deeper", ("h",), "/v1/x"),
    ]
    table = RouteTable((routes[at], routes[at].name) for at in order)
    blue = (("x-team", "blue"),)
    assert found_in(table, Request("h", "/v1/y", "GET", blue)) == "both"
    assert found_in(table, Request("h", "/v1/y", "GET")) == "get"
    assert found_in(table, Request("h", "/v1", "POST", blue)) == "plain"
    assert found_in(table, Request("h", "/v1/x/y", "GET", blue)) == "deeper"


@settings(max_examples=60)
@given(tables(most=3))
@example([RouteMatch("a", ("h",), methods=frozenset({"GET"})), RouteMatch("b", ("h",), headers=(("x-team", "blue"),))])
@example([RouteMatch("a", ("h",), headers=(HEADERS[0],)), RouteMatch("b", ("h",), headers=(HEADERS[1],))])
@example([RouteMatch("a", ("h",), headers=(HEADERS[0],)), RouteMatch("b", ("h",), headers=(HEADERS[2],))])
@example([RouteMatch("a", ("h",), "/v1"), RouteMatch("b", ("h",), "/v1/")])
def test_routes_are_ambiguous_exactly_when_they_tie_for_a_request(matches: list[RouteMatch]) -> None:
    ties = set()
    for first, second in itertools.combinations(matches, 2):
        for request in every_request([first, second]):
            # As if each host of a route were a route of its own: a tie under any shared host is one.
            for one, other in itertools.product(first.hosts, second.hosts):
                answers = ranked(
                    [
                        RouteMatch(m.name, (h,), m.path, m.methods, m.headers)
                        for m, h in ((first, one), (second, other))
                    ],
                    request,
                )
                if len(answers) == 2 and answers[0][0] == answers[1][0]:
                    ties.add((first.name, second.name))
    assert linked(each.routes for each in ambiguities(matches)) == linked(ties)


def linked(groups: Iterable[tuple[str, ...]]) -> set[frozenset[str]]:
    """Join groups that have a member in common."""
    found: set[frozenset[str]] = set()
    for group in groups:
        touched = {each for each in found if not each.isdisjoint(group)}
        found = (found - touched) | {frozenset(group).union(*touched)}
    return found


def test_an_ambiguity_says_who_and_where() -> None:
    a, b, c = RouteMatch("a", ("h", "i", "j"), "/v1"), RouteMatch("b", ("i",), "/v1"), RouteMatch("c", ("i",), "/v2")
    assert ambiguities([a, b, c]) == [Ambiguity(("a", "b"), ("i",), "/v1")]


def test_routes_that_are_linked_by_a_third_are_one_ambiguity() -> None:
    def route(name: str, *methods: str) -> RouteMatch:
        return RouteMatch(name, ("h", "i"), methods=frozenset(methods))

    apart = [route("a", "GET"), route("b", "POST"), route("c", "PUT")]
    assert ambiguities(apart) == []
    assert ambiguities([*apart, route("d", "PUT", "GET")]) == [Ambiguity(("a", "c", "d"), ("h", "i"), "/")]


def test_a_tie_of_thousands_is_found_at_once() -> None:
    many = [RouteMatch(f"r{at}", ("h",), headers=((f"x-{at}", "a"),)) for at in range(3000)]
    (tie,) = ambiguities(many)
    assert len(tie.routes) == 3000


def test_a_table_without_conditions_still_tells_hosts_apart() -> None:
    table = RouteTable([(RouteMatch("one", ("a.test",)), 1), (RouteMatch("all", ("*",)), 2)])
    for host, expected in ((b"a.test", 1), (b"A.Test.:80", 1), (b"b.test", 2), (b"", 2), (b"[::1]:80", 2)):
        levels = table.levels(host)
        assert levels is not None
        assert table.find(levels, b"/x", b"GET", lambda _: None) == expected
    assert table.levels(b"a/b") is None


@pytest.mark.parametrize(
    "target", [b"*", b"/", b"/v1", b"/v1/x", b"/v1?", b"//v1//x", b"/%76%31/x", b"/x/../v1", b"/x/%2e%2e/v1"]
)
def test_targets_are_compared_in_their_normal_form(target: bytes) -> None:
    table = RouteTable([(RouteMatch("root", ("h",)), "root"), (RouteMatch("v1", ("h",), "/v1"), "v1")])
    levels = table.levels(b"h")
    assert levels is not None
    expected = "root" if target in (b"*", b"/") else "v1"
    assert table.find(levels, target, b"GET", lambda _: None) == expected


def test_levels_are_remembered_only_so_far() -> None:
    table = RouteTable([(RouteMatch("all", ("*",)), 1)])
    for number in range(10_000):
        assert table.levels(b"h%d" % number)
    assert table.levels(b"x" * 70_000) is None
