"""Which route answers a request: the most specific host, then path, then conditions.

Nothing here does I/O. A table is built once per configuration and then only read.

The order among routes that match is: exact host, then the longest wildcard, then ``*``; within one host the longest
path; within one path the most further conditions (methods count one, each header one). Two routes of equal rank that
one request could satisfy are an error when the configuration is loaded, never a coin toss when it is served.

Paths are compared in one normal form, see `devhost_server.messages.paths`; what is forwarded are the bytes that came.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from devhost_server.messages.host import parse_host
from devhost_server.messages.paths import normal_path, other_readings

R = TypeVar("R")

# Host values seen are remembered so that a host is parsed once, not once a request: this many besides each that a
# route names, with and without a port. The bound keeps a scan of random names from growing a worker; past it the memory
# starts anew, which costs a few microseconds a host.
HOST_MEMORY: Final = 1024


@dataclass(frozen=True)
class RouteMatch:
    """What a request must satisfy to be answered by the route `name`.

    `hosts` are lower-case: exact names, ``*.suffix`` (one label more), ``**.suffix`` (one or more) or ``*`` (any).
    `path` is a prefix that ends on a segment boundary. Empty `methods` or `headers` are no condition; header names are
    lower-case, values are compared exactly.
    """

    name: str
    hosts: tuple[str, ...]
    path: str = "/"
    methods: frozenset[str] = frozenset()
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def conditions(self) -> int:
        """How many conditions beyond host and path this route makes."""
        return len(self.headers) + bool(self.methods)


@dataclass(frozen=True)
class Ambiguity:
    """Routes that rank equally, each with another of them that one request can satisfy as well; and where they do."""

    routes: tuple[str, ...]
    hosts: tuple[str, ...]
    path: str


def ambiguities(routes: Iterable[RouteMatch]) -> list[Ambiguity]:
    """Find all ambiguities. Routes are named in the order in which they are given.

    Groups instead of pairs: of 400 routes that differ by nothing but which header they want, there are 79,800.
    """
    ranks: dict[tuple[str, bytes, int], list[list[RouteMatch]]] = defaultdict(list)
    order: dict[str, int] = {}
    for route in routes:
        order[route.name] = len(order)
        for host in dict.fromkeys(route.hosts):
            rank = (host, _prefix(route.path), route.conditions)
            ranks[rank] = _grouped(ranks[rank], route)
    hosts: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (host, _, _), groups in ranks.items():
        for group in groups:
            if len(group) > 1:
                names = tuple(sorted((each.name for each in group), key=order.__getitem__))
                hosts[group[0].path, names].append(host)
    return [Ambiguity(names, tuple(shared), path) for (path, names), shared in hosts.items()]


def _grouped(groups: list[list[RouteMatch]], route: RouteMatch) -> list[list[RouteMatch]]:
    """Add a route: it makes one group of all in which it overlaps another."""
    apart, together = [], []
    for group in groups:
        if any(_overlap(route, other) for other in group):
            together += group
        else:
            apart.append(group)
    return [*apart, [*together, route]]


def _overlap(a: RouteMatch, b: RouteMatch) -> bool:
    if a.methods and b.methods and not a.methods & b.methods:
        return False
    wanted = dict(a.headers)
    return all(wanted.get(name, value) == value for name, value in b.headers)


def _prefix(path: str) -> bytes:
    """Return the stored form of a path prefix: no trailing slash, so that ``/v1`` and ``/v1/`` are one prefix."""
    return path.encode("utf-8").rstrip(b"/")


class _Candidate(Generic[R]):
    """One route under one path of one host, with its conditions ready to test."""

    __slots__ = ("headers", "methods", "route")

    def __init__(self, match: RouteMatch, route: R) -> None:
        self.methods = frozenset(method.encode() for method in match.methods)
        self.headers = tuple((name.encode(), value.encode("utf-8")) for name, value in match.headers)
        self.route = route

    def accepts(self, method: bytes, header: Callable[[bytes], bytes | None]) -> bool:
        if self.methods and method not in self.methods:
            return False
        return all(header(name) == value for name, value in self.headers)


class _HostRoutes(Generic[R]):
    """The routes of one host pattern: path prefixes, each with its candidates in order of preference."""

    __slots__ = ("depth", "only", "paths")

    def __init__(self) -> None:
        self.paths: dict[bytes, tuple[_Candidate[R], ...]] = {}
        self.depth = 0  # of the deepest prefix, in segments: what bounds the work for one request
        self.only: R | None = None

    def filling(self, entries: Sequence[tuple[RouteMatch, R]]) -> Iterator[None]:
        """Take the routes in, pausing after every path."""
        grouped: dict[bytes, list[tuple[RouteMatch, R]]] = defaultdict(list)
        for match, route in entries:
            grouped[_prefix(match.path)].append((match, route))
            yield
        for prefix, group in grouped.items():
            group.sort(key=lambda entry: -entry[0].conditions)
            self.paths[prefix] = tuple([_Candidate(match, route) for match, route in group])
            self.depth = max(self.depth, prefix.count(b"/"))
            yield
        # The common host has one unconditional route for every path: nothing is left to compare.
        sole = self.paths.get(b"", ()) if len(self.paths) == 1 else ()
        if len(sole) == 1 and not (sole[0].methods or sole[0].headers):
            self.only = sole[0].route

    def find(self, path: bytes, method: bytes, header: Callable[[bytes], bytes | None]) -> R | None:
        ends: list[int] = []
        at = 0
        while len(ends) < self.depth:
            at = path.find(b"/", at + 1)
            if at < 0:
                ends.append(len(path))
                break
            ends.append(at)
        for end in (*reversed(ends), 0):
            for candidate in self.paths.get(path[:end], ()):
                if candidate.accepts(method, header):
                    return candidate.route
        return None


class RouteTable(Generic[R]):
    """The routes of one configuration, looked up in a time that does not grow with their number."""

    __slots__ = ("_any", "_deep", "_exact", "_seen", "_single")

    def __init__(self, entries: Iterable[tuple[RouteMatch, R]] = ()) -> None:
        self._exact: dict[bytes, _HostRoutes[R]] = {}
        self._single: dict[bytes, _HostRoutes[R]] = {}
        self._deep: dict[bytes, _HostRoutes[R]] = {}
        self._any: _HostRoutes[R] | None = None
        self._seen: dict[bytes, tuple[_HostRoutes[R], ...]] = {}
        for _ in self.filling(entries):
            pass

    def filling(self, entries: Iterable[tuple[RouteMatch, R]]) -> Iterator[None]:
        """Take the routes of an empty table in, pausing every few microseconds, for who has something else to do.

        The table may be used when this has ended.
        """
        grouped: dict[str, list[tuple[RouteMatch, R]]] = defaultdict(list)
        for match, route in entries:
            for host in dict.fromkeys(match.hosts):
                grouped[host].append((match, route))
            yield
        for host, group in grouped.items():
            routes: _HostRoutes[R] = _HostRoutes()
            yield from routes.filling(group)
            self._place(host, routes)

    def _place(self, host: str, routes: _HostRoutes[R]) -> None:
        if host == "*":
            self._any = routes
        elif host.startswith("**."):
            self._deep[host[3:].encode()] = routes
        elif host.startswith("*."):
            self._single[host[2:].encode()] = routes
        else:
            self._exact[host.encode()] = routes

    def levels(self, host: bytes) -> tuple[_HostRoutes[R], ...] | None:
        """Return the host patterns that cover a Host value, most specific first; None if the value is malformed.

        An empty value (HTTP/1.0 without Host) is covered by ``*`` alone.
        """
        try:
            return self._seen[host]
        except KeyError:
            pass
        parsed = parse_host(host) if host else (b"", b"")
        if parsed is None:
            return None
        if len(self._seen) >= HOST_MEMORY + 2 * len(self._exact):
            self._seen.clear()
        levels = self._seen[host] = tuple(self._cover(parsed[0]))
        return levels

    def _cover(self, name: bytes) -> Iterable[_HostRoutes[R]]:
        if name in self._exact:
            yield self._exact[name]
        _, _, suffix = name.partition(b".")
        if suffix in self._single:
            yield self._single[suffix]
        while suffix:
            if suffix in self._deep:
                yield self._deep[suffix]
            _, _, suffix = suffix.partition(b".")
        if self._any is not None:
            yield self._any

    def find(
        self,
        levels: tuple[_HostRoutes[R], ...],
        target: bytes,
        method: bytes,
        header: Callable[[bytes], bytes | None],
        path: bytes | None = None,
    ) -> R | None:
        """Return the route for a request whose host is covered by `levels`, or None.

        `target` is in origin form; `path` is its normal form, if that is known. `header` returns the value of a field
        by its lower-case name, None if it is not there or has several.
        """
        for routes in levels:
            if routes.only is not None:
                return routes.only
            if path is None:
                path = normal_path(target)
            route = routes.find(path, method, header)
            if route is not None:
                return route
        return None

    def is_disputed(
        self,
        levels: tuple[_HostRoutes[R], ...],
        target: bytes,
        method: bytes,
        header: Callable[[bytes], bytes | None],
    ) -> bool:
        """Return whether some servers read a path in this target that belongs to another route than `find` returns."""
        readings = other_readings(target)
        if not readings:
            return False
        route = self.find(levels, target, method, header)
        return any(self.find(levels, target, method, header, path) is not route for path in readings)
