"""What /metrics says: one catalogue, read from the scoreboard, as Prometheus text 0.0.4 or OpenMetrics 1.0.

A metric is a row of `CATALOGUE`; the scrape, the tests and docs/metrics.md read it. Counters add up the rows of all
slots, which outlive their workers, so they never go down. A series whose labels cannot be known beforehand (a status, a
failure) appears with the first event that it counts, and so does a histogram: 500 routes at rest are a short scrape.

Headers are written by prometheus_client, which knows how the two formats differ. Samples are written here: its encoder
takes 7 to 10 µs of CPU for one, so 500 busy routes would be a third of a second on cores that the data plane shares;
filling in forms takes a seventh of that. The tests hold both to the same result.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache, lru_cache
from itertools import accumulate
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from devhost_server.failures import FLAGS
from devhost_server.observe.processes import Usage
from devhost_server.observe.view import NO_ROUTE, Codes, Labels, View
from devhost_server.shared.board import (
    BUCKETS,
    HISTOGRAM_CELLS,
    RESTART_REASONS,
    RETRY_REASONS,
    Board,
    RouteCell,
    Slot,
    TargetCell,
    UpstreamCell,
    WorkerState,
    code_name,
)

_MICROSECONDS: Final = 1e6
# OpenMetrics asks for canonical floats, with a point even where the number is whole.
_BOUNDS: Final = (*(str(bound / _MICROSECONDS) for bound in BUCKETS), "+Inf")

OPENMETRICS: Final = "application/openmetrics-text"


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one scrape is made from: the view, the processes by slot, and the version of this program."""

    view: View
    usages: Mapping[int, Usage]
    version: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts by bucket, +Inf last, each bucket by itself; the sum in seconds."""

    counts: list[int]
    sum: float


Point = tuple[Labels, int | float]
HistogramPoint = tuple[Labels, Histogram]


class Kind(Enum):
    """The types of metrics, each with the family of prometheus_client that writes its header."""

    COUNTER = CounterMetricFamily
    GAUGE = GaugeMetricFamily
    HISTOGRAM = HistogramMetricFamily
    INFO = InfoMetricFamily


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the catalogue. `read` gives the points of a scrape, their label values in the order of `labels`."""

    kind: Kind
    name: str
    labels: Labels
    help: str
    read: Callable[[Scrape], Iterable[Point] | Iterable[HistogramPoint]]

    def family(self) -> Family:
        """Make the prometheus_client family, without samples."""
        family: Family = self.kind.value(self.name.removesuffix("_info"), self.help)
        return family


# --- reading ---------------------------------------------------------------------------------------------------------


def _by_code(codes: Codes) -> Iterator[tuple[str, str, int]]:
    for (method, status), count in codes.items():
        yield method, code_name(status), count


def _requests(scrape: Scrape) -> Iterator[Point]:
    for (route,), at in scrape.view.routes():
        for method, code, count in _by_code(scrape.view.route_codes(at)):
            yield (route, method, code), count


def _target_requests(scrape: Scrape) -> Iterator[Point]:
    for labels, at in scrape.view.targets():
        counts: dict[str, int] = {}
        for _, code, count in _by_code(scrape.view.target_codes(at)):
            counts[code] = counts.get(code, 0) + count
        yield from (((*labels, code), count) for code, count in counts.items())


def _route(cell: RouteCell) -> Callable[[Scrape], Iterator[Point]]:
    return lambda scrape: ((labels, scrape.view.total(at + cell)) for labels, at in scrape.view.routes())


def _histogram(view: View, blocks: Iterable[tuple[Labels, int]], cell: int) -> Iterator[HistogramPoint]:
    for labels, at in blocks:
        *counts, total = view.totals(at + cell, HISTOGRAM_CELLS)
        if any(counts):
            yield labels, Histogram(counts, total / _MICROSECONDS)


def _route_durations(scrape: Scrape) -> Iterator[HistogramPoint]:
    return _histogram(scrape.view, scrape.view.routes(), RouteCell.DURATION)


def _upstream_durations(cell: UpstreamCell) -> Callable[[Scrape], Iterator[HistogramPoint]]:
    return lambda scrape: _histogram(scrape.view, scrape.view.upstreams(), cell)


def _failures(scrape: Scrape) -> Iterator[Point]:
    for (route,), at in scrape.view.routes():
        counts = scrape.view.totals(at + RouteCell.FAILURES, len(FLAGS))
        yield from (((route, flag), count) for flag, count in zip(FLAGS, counts, strict=True) if count)


def _retries(scrape: Scrape) -> Iterator[Point]:
    for (upstream,), at in scrape.view.upstreams():
        counts = scrape.view.totals(at + UpstreamCell.RETRIES, len(RETRY_REASONS))
        yield from (((upstream, reason), count) for reason, count in zip(RETRY_REASONS, counts, strict=True))


def _targets_up(scrape: Scrape) -> Iterator[Point]:
    return ((labels, int(scrape.view.failing_since(at) is None)) for labels, at in scrape.view.targets())


_TARGET_STATES: Final = {"active": TargetCell.ACTIVE, "idle": TargetCell.IDLE, "connecting": TargetCell.CONNECTING}


def _target_connections(scrape: Scrape) -> Iterator[Point]:
    for labels, at in scrape.view.targets():
        for state, cell in _TARGET_STATES.items():
            yield (*labels, state), scrape.view.total(at + cell)


def _connections(scrape: Scrape) -> Iterator[Point]:
    for index, listener in enumerate(scrape.view.served.listeners):
        counts = scrape.view.totals(Slot.LISTENERS + 2 * index, 2)
        yield from (((listener, state), count) for state, count in zip(("active", "idle"), counts, strict=True))


def _slot(cell: Slot) -> Callable[[Scrape], Iterator[Point]]:
    return lambda scrape: iter([((), scrape.view.total(cell))])


def _board(cell: Board) -> Callable[[Scrape], Iterator[Point]]:
    return lambda scrape: iter([((), scrape.view.board(cell))])


def _workers(scrape: Scrape) -> Iterator[Point]:
    states = [row[Slot.STATE] for row in scrape.view.workers().values()]
    return (((state.name.lower(),), states.count(state)) for state in WorkerState if state is not WorkerState.EMPTY)


def _restarts(scrape: Scrape) -> Iterator[Point]:
    cells = scrape.view.scoreboard.board[Board.RESTARTS : Board.RESTARTS + len(RESTART_REASONS)]
    return (((reason,), count) for reason, count in zip(RESTART_REASONS, cells, strict=True))


def _reloads(scrape: Scrape) -> Iterator[Point]:
    yield ("ok",), scrape.view.board(Board.RELOADS_OK)
    yield ("failed",), scrape.view.board(Board.RELOADS_FAILED)


def _build(scrape: Scrape) -> Iterator[Point]:
    yield (scrape.version,), 1


def _cpu(scrape: Scrape) -> Iterator[Point]:
    return (((str(slot),), usage.cpu) for slot, usage in scrape.usages.items())


def _process(field: str) -> Callable[[Scrape], Iterator[Point]]:
    def read(scrape: Scrape) -> Iterator[Point]:
        living = ((slot, usage.process) for slot, usage in scrape.usages.items() if usage.process)
        return (((str(slot),), getattr(process, field)) for slot, process in living)

    return read


# --- the catalogue ---------------------------------------------------------------------------------------------------

_C, _G, _H, _I = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM, Kind.INFO

CATALOGUE: Final = (
    Metric(
        _C, "devhost_requests_total", ("route", "method", "code"),
        "Requests by route, method and status; beyond a route's first 24 pairs, the code is a class like `5xx`.",
        _requests,
    ),
    Metric(
        _H, "devhost_request_duration_seconds", ("route",),
        "Time from the request head to the last byte of the response.",
        _route_durations,
    ),
    Metric(
        _C, "devhost_request_bytes_total", ("route",),
        "Bytes of request bodies received from clients.",
        _route(RouteCell.REQUEST_BYTES),
    ),
    Metric(
        _C, "devhost_response_bytes_total", ("route",),
        "Bytes of response bodies sent to clients.",
        _route(RouteCell.RESPONSE_BYTES),
    ),
    Metric(
        _G, "devhost_requests_in_flight", ("route",),
        "Requests that are being handled.",
        _route(RouteCell.IN_FLIGHT),
    ),
    Metric(
        _G, "devhost_websockets", ("route",),
        "Open WebSockets and other upgraded connections.",
        _route(RouteCell.WEBSOCKETS),
    ),
    Metric(
        _C, "devhost_failures_total", ("route", "flag"),
        "Requests that failed, by the flag of the access log.",
        _failures,
    ),
    Metric(
        _C, "devhost_upstream_requests_total", ("upstream", "target", "code"),
        "Requests sent to targets by status; beyond a target's first 12 pairs with a method, a class like `5xx`.",
        _target_requests,
    ),
    Metric(
        _H, "devhost_upstream_request_duration_seconds", ("upstream",),
        "Time from sending the request to the response head.",
        _upstream_durations(UpstreamCell.HEAD_DURATION),
    ),
    Metric(
        _H, "devhost_upstream_connect_duration_seconds", ("upstream",),
        "Time to make a connection to a target, TLS included.",
        _upstream_durations(UpstreamCell.CONNECT_DURATION),
    ),
    Metric(
        _C, "devhost_upstream_retries_total", ("upstream", "reason"),
        "Tries that were repeated, by what had ended the try before.",
        _retries,
    ),
    Metric(
        _G, "devhost_upstream_up", ("upstream", "target"),
        "0 while the last try of some worker to reach the target failed, else 1, also before the first try.",
        _targets_up,
    ),
    Metric(
        _G, "devhost_upstream_connections", ("upstream", "target", "state"),
        "Connections to a target: active with an exchange, idle for reuse, or connecting.",
        _target_connections,
    ),
    Metric(
        _G, "devhost_connections", ("listener", "state"),
        "Client connections: active with an exchange, or idle.",
        _connections,
    ),
    Metric(
        _C, "devhost_connections_accepted_total", (),
        "Client connections accepted.",
        _slot(Slot.ACCEPTED),
    ),
    Metric(
        _C, "devhost_connections_refused_total", (),
        "Client connections refused because server.limits.connections was reached.",
        _slot(Slot.OVERLOADED),
    ),
    Metric(
        _C, "devhost_access_log_dropped_total", (),
        "Lines of the access log that could not be written.",
        _slot(Slot.LOG_DROPPED),
    ),
    Metric(
        _G, "devhost_workers", ("state",),
        "Workers by what they are doing.",
        _workers,
    ),
    Metric(
        _C, "devhost_worker_restarts_total", ("reason",),
        "Workers that ended and were replaced, by how they ended.",
        _restarts,
    ),
    Metric(
        _G, "devhost_config_generation", (),
        "Number of the configuration that every worker is to serve.",
        _board(Board.GENERATION),
    ),
    Metric(
        _C, "devhost_config_reloads_total", ("result",),
        "Reloads of the configuration.",
        _reloads,
    ),
    Metric(
        _I, "devhost_build_info", ("version",),
        "Always 1; the version of this program.",
        _build,
    ),
    Metric(
        _C, "devhost_worker_cpu_seconds_total", ("slot",),
        "CPU time, user and system, of all workers that this slot has had.",
        _cpu,
    ),
    Metric(
        _G, "devhost_worker_resident_memory_bytes", ("slot",),
        "Resident memory of the worker, memory shared with other processes included.",
        _process("resident"),
    ),
    Metric(
        _G, "devhost_worker_open_fds", ("slot",),
        "Open file descriptors of the worker.",
        _process("descriptors"),
    ),
    Metric(
        _G, "devhost_worker_start_time_seconds", ("slot",),
        "When the worker was started, in seconds of Unix time.",
        _process("started_at"),
    ),
)  # fmt: skip


# --- writing ---------------------------------------------------------------------------------------------------------


class _Alone(Collector):
    """A registry of one family, which is what an encoder of prometheus_client takes."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterable[Family]:
        return [self._family]


@cache
def _head(metric: Metric, as_openmetrics: bool) -> str:
    encode = openmetrics.generate_latest if as_openmetrics else generate_latest
    text: bytes = encode(_Alone(metric.family()))
    return text.decode().removesuffix("# EOF\n")


# Bounded, because targets come and go with reloads; within a scrape each name is met some twenty times.
@lru_cache(maxsize=8192)
def _escape(value: str) -> str:
    # One rule for both formats: Prometheus text format 0.0.4, OpenMetrics 1.0 §"ABNF" (escaped-string).
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _labels_form(names: Labels) -> str:
    return ",".join([f'{name}="%s"' for name in names])


def _samples(metric: Metric, points: Iterable[Point]) -> Iterator[str]:
    name = metric.name
    form = f"{name}{{{_labels_form(metric.labels)}}} %s\n" if metric.labels else f"{name} %s\n"
    return (form % (*map(_escape, labels), value) for labels, value in points)


@cache
def _histogram_form(name: str) -> str:
    # The lines of one histogram: NUL stands where the labels go, %s for each number.
    buckets = "".join(f'{name}_bucket{{\0,le="{bound}"}} %s\n' for bound in _BOUNDS)
    return f"{buckets}{name}_count{{\0}} %s\n{name}_sum{{\0}} %s\n"


def _histograms(metric: Metric, points: Iterable[HistogramPoint]) -> Iterator[str]:
    form, labels_form = _histogram_form(metric.name), _labels_form(metric.labels)
    for labels, histogram in points:
        pairs = (labels_form % tuple(map(_escape, labels))).replace("%", "%%")
        counts = tuple(accumulate(histogram.counts))
        yield form.replace("\0", pairs) % (*counts, counts[-1], histogram.sum)


def render(scrape: Scrape, as_openmetrics: bool) -> bytes:
    """Write the whole exposition. Some 50 ms of CPU for 500 busy routes: not for an event loop."""
    parts = []
    for metric in CATALOGUE:
        parts.append(_head(metric, as_openmetrics))
        write = _histograms if metric.kind is Kind.HISTOGRAM else _samples
        parts.extend(write(metric, metric.read(scrape)))  # type: ignore[arg-type]  # the kind tells which points it has
    if as_openmetrics:
        parts.append("# EOF\n")
    return "".join(parts).encode()


def content_type(as_openmetrics: bool) -> str:
    """Name the format in a Content-Type."""
    return openmetrics.CONTENT_TYPE_LATEST if as_openmetrics else CONTENT_TYPE_PLAIN_0_0_4


def wants_openmetrics(accept: str) -> bool:
    """Return whether an Accept value (RFC 9110 §12.5.1) prefers OpenMetrics: named, and not ranked below plain text.

    Parameters other than `q` are left aside: what is sent says its version, and no name needs an escaping scheme.
    """
    return 0 < _quality(accept, OPENMETRICS) >= _quality(accept, "text/plain")


def _quality(accept: str, media_type: str) -> float:
    best = 0.0
    for entry in accept.lower().split(","):
        name, *parameters = [part.strip() for part in entry.split(";")]
        if name == media_type:
            best = max(best, next((_weight(p[2:]) for p in parameters if p.startswith("q=")), 1.0))
    return best


def _weight(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


def reference() -> str:
    """Write docs/metrics.md."""
    rows = [
        f"| `{m.name}` | {m.kind.name.lower()} | {', '.join(f'`{label}`' for label in m.labels) or '–'} | {m.help} |"
        for m in CATALOGUE
    ]
    return f"""\
# Metrics

`GET /metrics` on the admin listener, as Prometheus text 0.0.4, or as OpenMetrics 1.0 where `Accept` asks for it. Every
worker is merged, and counters go on when a worker is replaced, even one killed with SIGKILL.

This page is made from the catalogue in `devhost_server/observe/metrics.py`:
`python -m devhost_server.observe.metrics > docs/metrics.md`.

| metric | type | labels | what it says |
|---|---|---|---|
{chr(10).join(rows)}

Values of labels:

* `route` is the name in the configuration; `{NO_ROUTE}` counts requests that no route answered.
* `method` is one of the usual methods, or `OTHER`.
* `code` is the status that the client was given, 499 where it left; or its class, as `5xx`, which a selector like
  `code=~"5.."` finds too. For `devhost_upstream_requests_total` it is the
  target's own, and where no answer came the status that stands for the failure (502, 504).
* `flag` is one of {", ".join(f"`{flag}`" for flag in FLAGS)}.
* `reason` of a retry is one of {", ".join(f"`{reason}`" for reason in RETRY_REASONS)};
  of a restart {", ".join(f"`{reason}`" for reason in RESTART_REASONS)}.
* `slot` numbers the workers from 0; a replaced worker keeps its slot.

A series whose labels cannot be known beforehand appears with the first event that it counts, and so does a histogram.
The buckets of the histograms end at {", ".join(_BOUNDS)} seconds.

A target is `up` until a worker cannot reach it, and again as soon as each worker that failed has reached it. There are
no active checks in this version, so a target that nobody asks for keeps its last value.

The series of a route that a reload removes stay until its place on the scoreboard is given to another.
"""


if __name__ == "__main__":
    print(reference(), end="")  # what this module is run for
