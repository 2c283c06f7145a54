"""What is kept of an exchange that is over: counters, histograms, request ids, the line of the log."""

import os
import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson
import prometheus_client
import pytest

from devhost_server.accounting import Accounts
from devhost_server.exchange import Exchange
from devhost_server.observe.access_line import quoted
from devhost_server.observe.access_log import AccessLog
from devhost_server.route import Route
from devhost_server.secrecy import without_secrets
from devhost_server.shared.board import (
    BUCKETS,
    ROUTE_CODES,
    Capacity,
    RouteCell,
    Scoreboard,
    code_cell,
    code_key,
    observe,
)
from tests.benchmarks.inmemory import Loopback
from tests.benchmarks.messages import ANSWER, BROWSER

TOOK: Final = 4_200  # microseconds
KEY: Final = (b"GET", 200)


@pytest.fixture
def row() -> memoryview:
    return Scoreboard(Capacity(1, 2, 1, 1)).row(0)


@pytest.fixture
def exchange() -> Exchange:
    """A browser's exchange that is over."""
    with closing(Loopback()) as loopback:
        loopback.client.data_received(BROWSER)
        exchange = loopback.client.exchange
        loopback.server.data_received(ANSWER)
        assert exchange is not None
        assert exchange.over
        return exchange


# --- the scoreboard --------------------------------------------------------------------------------------------------


class Cell:
    """A count on the scoreboard, found by what has been remembered of the route."""

    def __init__(self, row: memoryview) -> None:
        self.row = row
        self.cells = {KEY: code_cell(row, RouteCell.CODES, ROUTE_CODES, code_key(*KEY))}

    def count(self, method: bytes, status: int) -> None:
        cell = self.cells.get((method, status))
        if cell is not None:
            self.row[cell] += 1

    def value(self) -> float:
        return self.row[self.cells[KEY]]


class SearchedCell(Cell):
    """The same without remembering where it is."""

    def count(self, method: bytes, status: int) -> None:
        self.row[code_cell(self.row, RouteCell.CODES, ROUTE_CODES, code_key(method, status))] += 1


class Labelled:
    """A counter of prometheus_client, as its documentation uses it; in this process alone."""

    def __init__(self, _: memoryview) -> None:
        registry = prometheus_client.CollectorRegistry()
        self.counter = prometheus_client.Counter("requests", "-", ("route", "method", "code"), registry=registry)

    def count(self, method: bytes, status: int) -> None:
        self.counter.labels("app", method.decode(), str(status)).inc()

    def value(self) -> float:
        return next(iter(self.counter.collect())).samples[0].value


class Child(Labelled):
    """The same with its labels looked up beforehand."""

    def __init__(self, row: memoryview) -> None:
        super().__init__(row)
        self.children = {KEY: self.counter.labels("app", "GET", "200")}

    def count(self, method: bytes, status: int) -> None:
        self.children[method, status].inc()


@pytest.mark.benchmark(group="one request counted")
@pytest.mark.parametrize("kind", [Cell, SearchedCell, Labelled, Child])
def test_a_counter_is_a_cell(benchmark: Any, row: memoryview, kind: type[Cell | Labelled]) -> None:
    """A cell of shared memory with one writer saves the labels, the lock and the float of a client library's counter;
    remembering where the cell is saves searching the table of codes.
    """
    counter = kind(row)
    benchmark(counter.count, *KEY)
    before = counter.value()
    counter.count(*KEY)
    assert before >= 1
    assert counter.value() == before + 1


class CellHistogram:
    def __init__(self, row: memoryview) -> None:
        self.row = row

    def observe(self) -> None:
        observe(self.row, RouteCell.DURATION, TOOK)

    def bucket(self) -> int:
        return next(index for index in range(len(BUCKETS)) if self.row[RouteCell.DURATION + index])


class ClientHistogram:
    def __init__(self, _: memoryview) -> None:
        bounds = [bound / 1e6 for bound in BUCKETS]
        registry = prometheus_client.CollectorRegistry()
        self.histogram = prometheus_client.Histogram("duration", "-", ("route",), registry=registry, buckets=bounds)

    def observe(self) -> None:
        self.histogram.labels("app").observe(TOOK / 1e6)

    def bucket(self) -> int:
        samples = [sample for sample in next(iter(self.histogram.collect())).samples if sample.name.endswith("_bucket")]
        return next(index for index, sample in enumerate(samples) if sample.value)


@pytest.mark.benchmark(group="one duration observed")
@pytest.mark.parametrize("kind", [CellHistogram, ClientHistogram])
def test_a_histogram_is_a_row_of_cells(
    benchmark: Any, row: memoryview, kind: type[CellHistogram | ClientHistogram]
) -> None:
    """Finding the bucket by bisection and adding whole microseconds saves a client library's lock and its walk along
    the buckets.
    """
    histogram = kind(row)
    benchmark(histogram.observe)
    assert BUCKETS[histogram.bucket()] == 5_000


BYTES: Final = int(RouteCell.RESPONSE_BYTES)


def plain_number(row: memoryview, at: int) -> int:
    row[at + BYTES] += 13
    return row[at + BYTES]


def enumeration(row: memoryview, at: int) -> int:
    row[at + RouteCell.RESPONSE_BYTES] += 13
    return row[at + RouteCell.RESPONSE_BYTES]


@pytest.mark.benchmark(group="a cell found")
@pytest.mark.parametrize("add", [plain_number, enumeration])
def test_cells_are_plain_numbers(benchmark: Any, row: memoryview, add: Any) -> None:
    """Taking the numbers out of their enumeration once saves its arithmetic for every request."""
    total = benchmark(add, row, 0)
    assert add(row, 0) == total + 13


class Books:
    """All that is counted of an exchange, without its log line."""

    def __init__(self, row: memoryview) -> None:
        self.accounts = Accounts(row, AccessLog(None, row, 0), Route("-", 0), lambda end_turn: None)

    def count(self, x: Exchange) -> None:
        if x.route is not None:
            x.counted = False
            self.accounts.begin(x, x.route)
            self.accounts.end(x)
            self.accounts.settle()

    def requests(self, x: Exchange) -> float:
        return self.accounts.row[x.route.code_cells[code_key(x.method, x.status)]] if x.route is not None else 0


class ClientLibraryBooks:
    """The same with prometheus_client in this process alone, labels remembered."""

    def __init__(self, _: memoryview) -> None:
        registry = prometheus_client.CollectorRegistry()
        bounds = [bound / 1e6 for bound in BUCKETS]

        def remembered(kind: Any, name: str, *labels: str, **options: Any) -> Callable[..., Any]:
            metric = kind(name, "-", labels, registry=registry, **options)
            return cache(metric.labels)

        self.in_flight = remembered(prometheus_client.Gauge, "in_flight", "route")
        self.codes = remembered(prometheus_client.Counter, "requests", "route", "method", "code")
        self.received = remembered(prometheus_client.Counter, "received", "route")
        self.sent = remembered(prometheus_client.Counter, "sent", "route")
        self.duration = remembered(prometheus_client.Histogram, "duration", "route", buckets=bounds)
        self.answers = remembered(prometheus_client.Counter, "answers", "target", "method", "code")
        self.head = remembered(prometheus_client.Histogram, "head", "upstream", buckets=bounds)
        self.registry = registry

    def count(self, x: Exchange) -> None:
        if x.route is None or x.route.upstream is None or x.target is None or x.response is None:
            return
        route = x.route.name
        self.in_flight(route).inc()
        seconds = time.monotonic() - x.started
        self.in_flight(route).dec()
        self.codes(route, x.method, x.status).inc()
        if x.bytes_in:
            self.received(route).inc(x.bytes_in)
        self.sent(route).inc(x.bytes_out)
        self.duration(route).observe(seconds)
        self.answers(x.target.url, x.method, x.response.status).inc()
        self.head(x.route.upstream.name).observe(x.upstream_seconds)

    def requests(self, x: Exchange) -> float:
        labels = {"route": "app", "method": str(x.method), "code": str(x.status)}
        return self.registry.get_sample_value("requests_total", labels) or 0


@pytest.mark.benchmark(group="the books of an exchange")
@pytest.mark.parametrize("kind", [Books, ClientLibraryBooks])
def test_the_books_are_additions(
    benchmark: Any, row: memoryview, exchange: Exchange, kind: type[Books | ClientLibraryBooks]
) -> None:
    """All counts and durations of an exchange, as cells: what a cell saves beside a client library, once a request."""
    books = kind(row)
    benchmark(books.count, exchange)
    before = books.requests(exchange)
    books.count(exchange)
    assert before >= 1
    assert books.requests(exchange) == before + 1


# --- request ids -----------------------------------------------------------------------------------------------------


@contextmanager
def many_at_once() -> Iterator[Callable[[], bytes]]:
    with closing(Loopback(log=None)) as loopback:
        yield loopback.new_id


@contextmanager
def one_by_one() -> Iterator[Callable[[], bytes]]:
    yield lambda: secrets.token_hex(16).encode()


@contextmanager
def random_uuid() -> Iterator[Callable[[], bytes]]:
    yield lambda: uuid.uuid4().hex.encode()  # noqa: PLW0108 -- a uuid for each call, not one for all


@pytest.mark.benchmark(group="a request id")
@pytest.mark.parametrize("way", [many_at_once, one_by_one, random_uuid])
def test_request_ids_are_drawn_many_at_a_time(
    benchmark: Any, way: Callable[[], AbstractContextManager[Callable[[], bytes]]]
) -> None:
    """Drawing the randomness of many ids at once saves a system call for each."""
    with way() as draw:
        drawn = [benchmark(draw), *(draw() for _ in range(1000))]
    assert len(set(drawn)) == len(drawn)
    assert all(len(bytes.fromhex(one.decode())) == 16 for one in drawn)


# --- the access log --------------------------------------------------------------------------------------------------


class DictLog:
    """The plain way: a dict for each line, and a serialiser; written in batches all the same."""

    def __init__(self, destination: str, _: memoryview) -> None:
        self.fd = os.open(destination, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.lines: list[bytes] = []
        self.size = 0

    def write(self, x: Exchange) -> None:
        fields, route, target = x.fields, x.route, x.target
        assert fields is not None
        assert route is not None
        assert target is not None
        line = orjson.dumps(
            {
                "ts": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
                "request_id": x.request_id.decode(),
                "route": route.name,
                "client": x.client_address.decode(),
                "method": x.method.decode(),
                "host": x.host.decode("utf-8", "backslashreplace"),
                "target": without_secrets(x.target_path.decode("utf-8", "backslashreplace")),
                "protocol": "HTTP/1.0" if x.old else "HTTP/1.1",
                "status": x.status,
                "flag": None if x.fault is None else x.fault.failure.flag,
                "bytes_in": x.bytes_in,
                "bytes_out": x.bytes_out,
                "duration_ms": round(x.seconds * 1000, 3),
                "upstream": None if route.upstream is None else route.upstream.name,
                "target_addr": target.address,
                "attempts": x.attempts,
                "connect_ms": round(x.connect_seconds * 1000, 3) if x.connect_seconds else None,
                "upstream_ms": round(x.upstream_seconds * 1000, 3) if x.upstream_seconds else None,
                "worker": 0,
                "user_agent": fields.user_agent.decode("utf-8", "backslashreplace") or None,
                "referer": without_secrets(fields.referer.decode("utf-8", "backslashreplace")) or None,
                "traceparent": fields.traceparent.decode("utf-8", "backslashreplace") or None,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        self.lines.append(line)
        self.size += len(line)
        if self.size > 32 * 1024:
            self.flush()

    def flush(self) -> None:
        os.write(self.fd, b"".join(self.lines))
        self.lines.clear()
        self.size = 0

    def close(self) -> None:
        self.flush()
        os.close(self.fd)


def parts(destination: str, row: memoryview) -> AccessLog:
    return AccessLog(destination, row, 0)


@pytest.mark.benchmark(group="a line of the access log")
@pytest.mark.parametrize("make", [parts, DictLog], ids=["parts put together", "dict and orjson"])
def test_a_line_is_put_together(
    benchmark: Any, row: memoryview, exchange: Exchange, tmp_path: Path, make: Callable[[str, memoryview], Any]
) -> None:
    """Formatting a line from parts that are known to be clean saves a dict, decoding what came as bytes, and quoting
    what requests with the same fields share.
    """
    with closing(make("/dev/null", row)) as log:
        benchmark(log.write, exchange)
    lines = []
    for name, way in (("this", make), ("other", DictLog)):
        with closing(way(str(tmp_path / name), row)) as log:
            log.write(exchange)
        line = orjson.loads((tmp_path / name).read_bytes())
        assert abs((datetime.now(UTC) - datetime.fromisoformat(line.pop("ts"))).total_seconds()) < 60
        lines.append(list(line.items()))
    assert lines[0] == lines[1]


def serialised(raw: bytes) -> bytes:
    return orjson.dumps(raw.decode("utf-8", "backslashreplace"))


@pytest.mark.benchmark(group="a client's text quoted")
@pytest.mark.parametrize("quote", [quoted, serialised])
@pytest.mark.parametrize("text", [b"/assets/app.js", b"/assets/" + 20 * b"modules/" + b"app.js"], ids=["short", "long"])
def test_plain_text_is_quoted_by_its_quotes(benchmark: Any, text: bytes, quote: Callable[[bytes], bytes]) -> None:
    """Text of plain characters needs nothing but quotes around it: seeing that is to save decoding and serialising it,
    and is worth its lines for as long as these rows say so.
    """
    assert benchmark(quote, text) == b'"' + text + b'"'
    for odd in (b'say "yes"', b"a\\b", b"\xc3\xa9t\xc3\xa9", b"\xff", b"\x00"):
        assert quote(odd) == serialised(odd)
