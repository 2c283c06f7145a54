"""What is measured: each piece of work with its load, the proxies it is measured on, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass

from .loads import Excess, IdleConnections, Load, Overload, Paced, Rest, Scraped, Spread, WebSocket, Wrk
from .proxies import GATEWAY, SHEDDING_POOL, Variant

SERVERS = (GATEWAY, "nginx", "nginx+log", "haproxy", "envoy", "traefik", "caddy")
TUNED = "nginx+64k"
BODIES = (*SERVERS, TUNED)
NEAR = (GATEWAY, "nginx", "nginx+log", "haproxy")
PAIR = (GATEWAY, "nginx+log")
_BUFFERS = f"`{TUNED}` is nginx with buffers of 64 KB instead of its own 4 and 8 KB."
EVERYBODY = (*SERVERS, "aiohttp", "httpx")
PLAIN = Variant()


@dataclass(frozen=True)
class Case:
    """One point of a piece of work."""

    label: str
    load: Load
    variant: Variant = PLAIN
    x: float | None = None
    """Where it stands on the axis of what grows."""
    weight: float = 1.0
    """Its measurements last this many times as long as the others'."""


@dataclass(frozen=True)
class Work:
    """A piece of work: cases that belong together, measured in the same rounds."""

    name: str
    title: str
    cases: tuple[Case, ...]
    proxies: tuple[str, ...] = NEAR
    axis: str | None = None
    """What grows from case to case."""
    note: str = ""
    unit: str = "request"
    weight: float = 1.0
    """Its measurements last this many times the seconds asked for."""
    rounds: int | None = None
    """Most rounds, where more tell nothing."""
    fresh: bool = False
    """Start the proxies anew for each round: memory once used is not given back."""

    @property
    def echoes(self) -> bool:
        """Whether the upstream is the WebSocket echo."""
        return any(isinstance(case.load, WebSocket) for case in self.cases)


def _one(name: str, title: str, load: Load, **more: object) -> Work:
    return Work(name, title, (Case("", load),), **more)  # type: ignore[arg-type]  # passed on as they are


WORKS: dict[str, Work] = {
    work.name: work
    for work in (
        _one(
            "small-get",
            "Small GET, 32 connections",
            Wrk(),
            proxies=EVERYBODY,
            weight=1.5,
            note="The answer is 66 bytes of JSON.",
        ),
        Work(
            "connections",
            "Small GET by connections",
            (
                *(Case(f"{count}", Wrk(connections=count), x=count) for count in (1, 32, 512)),
                Case("5,000", Wrk(connections=5000), Variant(clients=5100), x=5000, weight=2.0),
            ),
            proxies=(GATEWAY, "nginx", "nginx+log"),
            axis="client connections",
            weight=1.5,
            note="Opening the connections is part of what is measured: with 5,000 it is a good part, and errors are\n"
            "those that came when the accept queue was full (`somaxconn`: no listener can have a longer one).",
        ),
        _one("down-100k", "100 KB down", Wrk("/static/100k"), proxies=BODIES, note=_BUFFERS),
        _one("down-10m", "10 MB down", Wrk("/static/10m", connections=4), proxies=BODIES, note=_BUFFERS),
        _one(
            "up-10m", "10 MB up", Wrk("/upload", connections=4, mode="upload 10000000"), proxies=BODIES, note=_BUFFERS
        ),
        _one("ws-64", "WebSocket echo, 64 B", WebSocket(64), proxies=SERVERS, unit="message"),
        Work(
            "routes",
            "Small GET by routes",
            tuple(
                Case(f"{count:,}", Wrk(mode=f"hosts {count}"), Variant(routes=count), x=count)
                for count in (1, 10, 100, 1000, 10_000)
            ),
            proxies=PAIR,
            axis="routes",
            note="Each route is a host of its own, and requests go round all of them: with thousands, what a request\n"
            "needs is in no cache any more, the processor's or ours.",
        ),
        Work(
            "one-of-routes",
            "Small GET to one of the routes",
            tuple(Case(f"{count:,}", Wrk(), Variant(routes=count), x=count) for count in (1, 100, 10_000)),
            proxies=PAIR,
            axis="routes",
            note="Each route is a host of its own; all requests are for the same one.",
        ),
        _one(
            "half-load",
            "Small GET at half the peak",
            Paced(0.5, connections=64),
            proxies=SERVERS,
            weight=1.5,
            note="Poisson arrivals, at half of the proxy's own peak or of the gateway's, if that is less; latency\n"
            "counts from the moment a request was due.",
        ),
        Work(
            "scrape",
            "4,000 requests a second while 500 routes are scraped",
            (
                Case("not scraped", Scraped(4000, 64, None), Variant(routes=500)),
                Case("once a second", Scraped(4000, 64, 1.0), Variant(routes=500)),
            ),
            proxies=(GATEWAY,),
            weight=5.0,
            note="Every route has been asked for. Scrapers come every 15 s or so; master, control and worker share a\n"
            "core here, which is what a machine with nothing to spare looks like.",
        ),
        Work(
            "idle-10000",
            "10,000 idle keep-alive connections",
            (Case("", IdleConnections(10_000), Variant(clients=10_100)),),
            rounds=1,
            fresh=True,
            unit="connection",
            note="Growth of the processes, without what nginx sets aside at its start for each connection it may get,\n"
            "and without the kernel's socket buffers, which are the same for all.",
        ),
        Work(
            "overload",
            "Offered twice the peak",
            (
                Case("waits, 512", Overload(2.0, connections=512), Variant(clients=2300)),
                Case("sheds, 512", Overload(2.0, connections=512), Variant(sheds=True, clients=2300)),
                Case("waits", Overload(2.0, connections=2000), Variant(clients=2300)),
                Case("sheds", Overload(2.0, connections=2000), Variant(sheds=True, clients=2300)),
                Case("slow", Excess(2.0, "/delay/0.05", SHEDDING_POOL, 400), Variant(sheds=True, slow=True)),
            ),
            proxies=(GATEWAY, "haproxy"),
            weight=4.0,  # opening 2,000 connections must be a small part of it
            note="`sheds`: 64 upstream connections and `pool.wait: 50ms`; `waits`: 512 and 60 s; in both it is the\n"
            "proxy that is at its end, with 2,000 clients or 512. `slow`: as `sheds`, but it is the upstream, which\n"
            "takes 50 ms for an answer, and the rate is fixed. Latencies of the others are those of a probe beside\n"
            "the load.",
        ),
        Work(
            "fairness",
            "400 connections at once, two workers",
            (Case("", Spread(400), Variant(workers=2)),),
            proxies=(GATEWAY, "nginx", "nginx+reuseport", "uvloop", "uvloop+reuseport"),
            note="`+reuseport`: a listening socket for each worker, to which the kernel deals connections by a hash.",
            unit="connection",
        ),
        Work(
            "memory",
            "At rest after some load",
            (Case("1 worker", Rest()), Case("2 workers", Rest(), Variant(workers=2))),
            proxies=SERVERS,
            rounds=1,
            fresh=True,
            unit="process",
        ),
        _one("down-1k", "1 KB down", Wrk("/static/1k")),
        _one("post-2k", "POST of 2 KB JSON", Wrk("/upload", mode="post 2000")),
        _one("chunked-down", "16 KB down, chunked", Wrk("/chunked/16k")),
        _one("chunked-up", "2 KB up in four chunks", Wrk("/upload", mode="chunked 2000")),
        _one("ws-64k", "WebSocket echo, 64 KB", WebSocket(65_000, connections=8), unit="message"),
        _one(
            "browser",
            "GETs with a browser's head, each for another path",
            Wrk(mode="browser"),
            proxies=SERVERS,
            note="16 header fields, 900 bytes; path, query, cookie and Referer never repeat.",
        ),
        Work(
            "two-workers",
            "Small GET, 64 connections, two workers",
            (Case("", Wrk(connections=64), Variant(workers=2)),),
        ),
        Work(
            "headers",
            "Small GET by header fields",
            tuple(Case(f"{count}", Wrk(mode=f"headers {count}"), x=count) for count in (1, 10, 30, 100)),
            proxies=PAIR,
            axis="header fields of the request",
        ),
        Work(
            "targets",
            "Small GET by targets of the upstream",
            tuple(Case(f"{count}", Wrk(), Variant(targets=count), x=count) for count in (1, 10, 100)),
            proxies=PAIR,
            axis="targets",
        ),
    )
}

TARGETED = (
    "small-get",
    "connections",
    "down-100k",
    "down-10m",
    "up-10m",
    "ws-64",
    "routes",
    "one-of-routes",
    "half-load",
    "idle-10000",
)
"""What the targets are about, but for those that are about the gateway alone."""
SETS: dict[str, tuple[str, ...]] = {
    "table": (*TARGETED, "scrape", "overload", "fairness"),
    "all": tuple(WORKS),
    "growth": ("connections", "routes", "one-of-routes", "headers", "targets"),
}


@dataclass(frozen=True)
class Target:
    """A promise: a figure of the gateway, as a multiple of `peer`'s where one is given, is at most (or least) so much.

    `case` is the label of the gateway's case; the peer's is `peer_case`, the same one where it is not given.
    """

    work: str
    figure: str
    limit: float
    peer: str | None = None
    case: str = ""
    peer_case: str | None = None
    at_least: bool = False

    @property
    def sentence(self) -> str:
        """What is promised, in words."""
        bound = "at least" if self.at_least else "at most"
        work = WORKS[self.work]
        where = f"{work.title}, {self.case} {work.axis or ''}".strip() if self.case else work.title
        against = "" if self.peer is None else f" × {self.peer}"
        if self.peer == GATEWAY:
            against = f" × its own with {self.peer_case}"
        return f"{where}: {FIGURES[self.figure]} {bound} {self.limit:g}{against}"


FIGURES = {
    "cpu_us": "CPU",
    "p99": "p99",
    "bytes_per_connection": "bytes per connection",
    "goodput_share": "goodput, as a share of the peak,",
    "refused_p99": "p99 of a refusal (s)",
    "unevenness": "a worker's distance from an even share",
}

TARGETS = (
    Target("small-get", "cpu_us", 2.0, "nginx+log"),
    Target("small-get", "cpu_us", 0.65, "envoy"),
    Target("small-get", "cpu_us", 0.65, "traefik"),
    Target("small-get", "cpu_us", 0.45, "caddy"),
    Target("connections", "cpu_us", 2.0, "nginx+log", case="512"),
    Target("down-100k", "cpu_us", 1.1, "nginx"),
    Target("down-10m", "cpu_us", 1.3, "nginx"),
    Target("up-10m", "cpu_us", 1.3, "nginx"),
    Target("ws-64", "cpu_us", 2.0, "nginx"),
    Target("half-load", "p99", 3.0, "nginx"),
    Target("idle-10000", "bytes_per_connection", 15_000),
    Target("one-of-routes", "cpu_us", 1.05, GATEWAY, case="10,000", peer_case="1"),
    Target("routes", "cpu_us", 1.05, GATEWAY, case="10,000", peer_case="1"),
    Target("scrape", "p99", 1.5, GATEWAY, case="once a second", peer_case="not scraped"),
    Target("overload", "goodput_share", 0.9, case="waits, 512", at_least=True),
    Target("overload", "goodput_share", 0.9, case="sheds, 512", at_least=True),
    Target("overload", "goodput_share", 0.9, case="waits", at_least=True),
    Target("overload", "goodput_share", 0.9, case="sheds", at_least=True),
    Target("overload", "goodput_share", 0.9, case="slow", at_least=True),
    Target("fairness", "unevenness", 0.2),
)
