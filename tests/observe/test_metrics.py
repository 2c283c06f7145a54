import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from devhost_server.failures import FLAGS
from devhost_server.observe.metrics import (
    CATALOGUE,
    Histogram,
    Kind,
    Scrape,
    content_type,
    reference,
    render,
    wants_openmetrics,
)
from devhost_server.observe.processes import Process, Usage
from devhost_server.observe.view import Served, View
from devhost_server.shared.board import (
    BUCKETS,
    METHODS,
    RETRY_REASONS,
    ROUTE_CODES,
    Board,
    Capacity,
    RouteCell,
    Slot,
    TargetCell,
    UpstreamCell,
    WorkerState,
)
from tests.shared.boards import Shared

API = ("api", "http://127.0.0.1:8000")
USAGES = {
    0: Usage(Process(4711, 1.5, 52_428_800, 17, 1_700_000_000.25), 3.75),
    1: Usage(None, 0.5),
}

# The contract's list: the names and labels that dashboards are written against.
CONTRACT = {
    "devhost_requests_total": {"route", "method", "code"},
    "devhost_request_duration_seconds": {"route"},
    "devhost_request_bytes_total": {"route"},
    "devhost_response_bytes_total": {"route"},
    "devhost_requests_in_flight": {"route"},
    "devhost_upstream_requests_total": {"upstream", "target", "code"},
    "devhost_upstream_request_duration_seconds": {"upstream"},
    "devhost_upstream_connect_duration_seconds": {"upstream"},
    "devhost_upstream_retries_total": {"upstream", "reason"},
    "devhost_upstream_up": {"upstream", "target"},
    "devhost_upstream_connections": {"upstream", "target", "state"},
    "devhost_failures_total": {"route", "flag"},
    "devhost_connections": {"listener", "state"},
    "devhost_websockets": {"route"},
    "devhost_workers": {"state"},
    "devhost_worker_restarts_total": {"reason"},
    "devhost_config_generation": set(),
    "devhost_config_reloads_total": {"result"},
    "devhost_build_info": {"version"},
}


class Samples:
    """A parsed exposition."""

    def __init__(self, text: bytes, as_openmetrics: bool = False) -> None:
        parse = parse_openmetrics if as_openmetrics else parse_text
        self.families = list(parse(text.decode()))
        found = [((s.name, tuple(sorted(s.labels.items()))), s.value) for f in self.families for s in f.samples]
        self.values = dict(found)
        assert len(self.values) == len(found), "a series appears twice"

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.values.get((name, tuple(sorted(labels.items()))))

    def of(self, name: str) -> list[dict[str, str]]:
        return [dict(labels) for found, labels in self.values if found == name]

    @property
    def counters(self) -> dict[Any, float]:
        endings = ("_total", "_count", "_sum", "_bucket")
        return {key: value for key, value in self.values.items() if key[0].endswith(endings)}


def scraped(shared: Shared, usages: Mapping[int, Usage] = USAGES, as_openmetrics: bool = False) -> Samples:
    return Samples(render(Scrape(shared.view(), usages, "1.2.3"), as_openmetrics), as_openmetrics)


@pytest.fixture
def shared() -> Shared:
    made = Shared()
    made.publish()
    return made


@pytest.fixture
def busy(shared: Shared) -> Shared:
    """Everything that can be counted has been counted."""
    fill(shared, shared.worker(0), shared.worker(1))
    return shared


def fill(shared: Shared, *workers: Any) -> None:
    for worker in workers:
        for route in shared.view().served.routes:
            worker.request(route)
            worker.request(route, b"POST", 502, 70_000_000)
            at = worker.route(route)
            for cell in range(at, at + RouteCell.DURATION):
                worker.row[cell] += 1
        for upstream, url in shared.view().served.targets:
            worker.exchange(upstream, url)
            worker.exchange(upstream, url, status=503)
        for upstream in shared.view().served.upstreams:
            at = worker.upstream(upstream)
            for cell in range(at, at + len(RETRY_REASONS)):
                worker.row[cell] += 1
            for cell in range(at + UpstreamCell.CONNECT_DURATION, at + UpstreamCell.CONNECT_DURATION + 3):
                worker.row[cell] += 1


# --- the formats -----------------------------------------------------------------------------------------------------


def families(scrape: Scrape) -> Iterable[Family]:
    """The same points through prometheus_client's own model."""
    for metric in CATALOGUE:
        family: Any = metric.kind.value(metric.name.removesuffix("_info"), metric.help, labels=metric.labels)
        for labels, value in metric.read(scrape):
            if isinstance(value, Histogram):
                counts = [sum(value.counts[: at + 1]) for at in range(len(value.counts))]
                bounds = [*(str(bound / 1e6) for bound in BUCKETS), "+Inf"]
                family.add_metric(labels, list(zip(bounds, counts, strict=True)), value.sum)
            elif metric.kind is Kind.INFO:
                family.add_metric((), dict(zip(metric.labels, labels, strict=True)))
            else:
                family.add_metric(labels, value)
        yield family


class Reference:
    def __init__(self, scrape: Scrape) -> None:
        self.collect = lambda: families(scrape)


def assert_equal_to_the_reference(scrape: Scrape) -> None:
    by_hand = Samples(render(scrape, as_openmetrics=False))
    reference_text = Samples(generate_latest(Reference(scrape)))  # type: ignore[arg-type]
    assert by_hand.values == reference_text.values
    assert by_hand.families == reference_text.families
    by_hand = Samples(render(scrape, as_openmetrics=True), as_openmetrics=True)
    reference_text = Samples(openmetrics.generate_latest(Reference(scrape)), as_openmetrics=True)
    assert by_hand.values == reference_text.values
    assert by_hand.families == reference_text.families


def test_both_formats_say_what_prometheus_client_would_say(busy: Shared) -> None:
    assert_equal_to_the_reference(Scrape(busy.view(), USAGES, "1.2.3"))


nasty = st.text(st.sampled_from('ab\\"\n%s{}d, =é\u2028'), min_size=1, max_size=12)


@given(st.sets(nasty, min_size=1, max_size=4), nasty)
@settings(deadline=None, max_examples=60)
def test_labels_are_escaped_whatever_they_hold(names: set[str], version: str) -> None:
    shared = Shared(Capacity(1, 4, 4, 4))
    blocks = {name: at for at, name in enumerate(sorted(names))}
    served = Served(
        routes=blocks,
        upstreams=blocks,
        targets={(name, name): at for name, at in blocks.items()},
        settings={"server": {"bind": sorted(names)}},
    )
    worker = shared.worker(0)
    for block in blocks.values():
        for at in (
            shared.scoreboard.route_at(block) + RouteCell.DURATION,
            shared.scoreboard.upstream_at(block) + UpstreamCell.HEAD_DURATION,
        ):
            worker.row[at] += 1
    assert_equal_to_the_reference(Scrape(View(shared.scoreboard, served, {0: worker.row}), USAGES, version))


def test_an_empty_gateway_has_metrics() -> None:
    shared = Shared()
    found = scraped(shared, {})
    assert found("devhost_config_generation") == 0
    assert found("devhost_workers", state="ready") == 0
    assert_equal_to_the_reference(Scrape(shared.view(), {}, "1"))


def test_openmetrics_ends_with_its_mark_and_text_does_not(busy: Shared) -> None:
    scrape = Scrape(busy.view(), USAGES, "1.2.3")
    assert render(scrape, as_openmetrics=True).endswith(b"\n# EOF\n")
    assert render(scrape, as_openmetrics=True).count(b"# EOF") == 1
    assert b"# EOF" not in render(scrape, as_openmetrics=False)


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_finds_nothing(busy: Shared) -> None:
    text = render(Scrape(busy.view(), USAGES, "1.2.3"), as_openmetrics=False)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text;version=abc", True),
        ("APPLICATION/OpenMetrics-Text;q=0.5", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=junk", False),
        ("application/openmetrics-text;q=nan", False),
        ("application/openmetrics-text;q=0.4,text/plain;q=0.5", False),
        ("text/plain;q=0.5,application/openmetrics-text;q=0.5", True),
        (
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,"
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
                "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,"
                "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
            ),
            True,
        ),
        (",;,;;q=,application/openmetrics-text;;", True),
    ],
)
def test_the_format_is_chosen_by_accept(accept: str, wanted: bool) -> None:
    assert wants_openmetrics(accept) is wanted


@given(st.text())
def test_any_accept_is_understood_somehow(accept: str) -> None:
    assert wants_openmetrics(accept) in {True, False}


def test_content_types_name_their_versions() -> None:
    assert content_type(False) == "text/plain; version=0.0.4; charset=utf-8"
    assert content_type(True) == "application/openmetrics-text; version=1.0.0; charset=utf-8"


# --- the catalogue ---------------------------------------------------------------------------------------------------


def test_the_contract_is_in_the_catalogue() -> None:
    found = {metric.name: set(metric.labels) for metric in CATALOGUE}
    assert {name: found.get(name) for name in CONTRACT} == CONTRACT


def test_every_metric_has_samples_once_everything_was_counted(busy: Shared) -> None:
    found = scraped(busy)
    for metric in CATALOGUE:
        name = metric.name + ("_count" if metric.kind is Kind.HISTOGRAM else "")
        assert found.of(name), name
        assert all(set(labels) == set(metric.labels) for labels in found.of(name)), name


def test_names_follow_the_conventions() -> None:
    for metric in CATALOGUE:
        assert metric.name.startswith("devhost_")
        assert metric.name.endswith("_total") is (metric.kind is Kind.COUNTER), metric.name
        assert metric.help.endswith("."), metric.name
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)


def test_the_documentation_is_the_catalogue() -> None:
    page = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert page.read_text() == reference(), "run: python -m devhost_server.observe.metrics > docs/metrics.md"


# --- what is counted -------------------------------------------------------------------------------------------------


def test_workers_are_merged(shared: Shared) -> None:
    one, two = shared.worker(0), shared.worker(2)
    one.request("api", b"GET", 200, 4_000)
    one.request("api", b"GET", 200, 2_000_000)
    two.request("api", b"PURGE", 200, 4_000)
    two.request("-", b"GET", 404)
    found = scraped(shared)
    assert found("devhost_requests_total", route="api", method="GET", code="200") == 2
    assert found("devhost_requests_total", route="api", method="OTHER", code="200") == 1
    assert found("devhost_requests_total", route="-", method="GET", code="404") == 1
    assert found("devhost_request_duration_seconds_bucket", route="api", le="0.0025") == 0
    assert found("devhost_request_duration_seconds_bucket", route="api", le="0.005") == 2
    assert found("devhost_request_duration_seconds_bucket", route="api", le="1.0") == 2
    assert found("devhost_request_duration_seconds_bucket", route="api", le="2.5") == 3
    assert found("devhost_request_duration_seconds_bucket", route="api", le="+Inf") == 3
    assert found("devhost_request_duration_seconds_count", route="api") == 3
    assert found("devhost_request_duration_seconds_sum", route="api") == pytest.approx(2.008)
    assert found("devhost_request_bytes_total", route="api") == 30
    assert found("devhost_response_bytes_total", route="api") == 300
    assert found("devhost_response_bytes_total", route="web") == 0


def test_gauges_of_a_route(shared: Shared) -> None:
    for slot in (0, 1):
        worker = shared.worker(slot)
        worker.row[worker.route("web") + RouteCell.IN_FLIGHT] = 3
        worker.row[worker.route("web") + RouteCell.WEBSOCKETS] = 1 + slot
    found = scraped(shared)
    assert found("devhost_requests_in_flight", route="web") == 6
    assert found("devhost_websockets", route="web") == 3
    assert found("devhost_websockets", route="-") == 0


@pytest.mark.parametrize("flag", FLAGS)
def test_failures_by_flag(shared: Shared, flag: str) -> None:
    worker = shared.worker(0)
    worker.row[worker.route("api") + RouteCell.FAILURES + FLAGS.index(flag)] = 4
    found = scraped(shared)
    assert found.of("devhost_failures_total") == [{"route": "api", "flag": flag}]
    assert found("devhost_failures_total", route="api", flag=flag) == 4


def test_series_of_the_unforeseeable_appear_with_their_first_event(shared: Shared) -> None:
    shared.worker(0)
    found = scraped(shared)
    for name in ("devhost_requests_total", "devhost_failures_total", "devhost_request_duration_seconds_count"):
        assert found.of(name) == []
    assert found("devhost_upstream_retries_total", upstream="api", reason="connect") == 0


def test_upstreams(shared: Shared) -> None:
    worker = shared.worker(0)
    worker.exchange(*API, b"GET", 200)
    worker.exchange(*API, b"POST", 200)
    worker.exchange(*API, b"POST", 503)
    at = worker.upstream("api")
    worker.row[at + UpstreamCell.RETRIES + RETRY_REASONS.index("stale")] = 2
    worker.row[at + UpstreamCell.CONNECT_DURATION] = 1
    found = scraped(shared)
    labels = {"upstream": API[0], "target": API[1]}
    assert found("devhost_upstream_requests_total", **labels, code="200") == 2
    assert found("devhost_upstream_requests_total", **labels, code="503") == 1
    assert found("devhost_upstream_request_duration_seconds_count", upstream="api") == 3
    assert found("devhost_upstream_connect_duration_seconds_count", upstream="api") == 1
    assert found("devhost_upstream_retries_total", upstream="api", reason="stale") == 2
    assert found("devhost_upstream_up", **labels) == 1
    worker.row[worker.target(*API) + TargetCell.FAILING_SINCE] = 1
    assert scraped(shared)("devhost_upstream_up", **labels) == 0


def test_connections_of_a_target_by_state(shared: Shared) -> None:
    worker = shared.worker(0)
    at = worker.target(*API)
    for cell, count in ((TargetCell.ACTIVE, 3), (TargetCell.IDLE, 5), (TargetCell.CONNECTING, 7)):
        worker.row[at + cell] = count
    found = scraped(shared)
    labels = {"upstream": API[0], "target": API[1]}
    counts = {state: found("devhost_upstream_connections", **labels, state=state) for state in ("active", "idle")}
    assert counts == {"active": 3, "idle": 5}
    assert found("devhost_upstream_connections", **labels, state="connecting") == 7


def test_what_a_table_has_no_room_for_is_counted_by_its_class(shared: Shared) -> None:
    worker = shared.worker(0)
    for status in range(200, 200 + ROUTE_CODES + 5):
        worker.request("api", status=status)
        worker.exchange(*API, status=status)
    found = scraped(shared)
    assert found("devhost_requests_total", route="api", method="GET", code="2xx") == 5
    assert found("devhost_upstream_requests_total", upstream=API[0], target=API[1], code="2xx") == 17
    assert sum(v for (name, _), v in found.values.items() if name == "devhost_requests_total") == ROUTE_CODES + 5


# A page's alert is fed with what /metrics says: `eval_time` is behind the five minutes for which it must hold.
RULE_TEST = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series: {series}
    alert_rule_test:
      - eval_time: 15m
        alertname: DevhostRouteFails
        exp_alerts: {alerts}
"""


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize("failures", [0, 500])
def test_odd_requests_cannot_silence_the_shipped_alert(shared: Shared, tmp_path: Path, failures: int) -> None:
    worker = shared.worker(0)
    methods = [method.encode() for method in METHODS]
    for status in (*range(200, 240), 404):
        for method in methods:
            worker.request("api", method=method, status=status)
    before = requests_total(scraped(shared))
    for number in range(failures):
        worker.request("api", method=methods[number % len(methods)], status=500 + number % 5)
    series = [
        {"series": f'{labels[:-1]},instance="g"}}', "values": f"{before.get(labels, 0)}+{rise}x20"}
        for labels, count in requests_total(scraped(shared)).items()
        if (rise := count - before.get(labels, 0)) or failures == 0
    ]
    alerts = [
        {
            "exp_labels": {"alertname": "DevhostRouteFails", "severity": "ticket", "instance": "g", "route": "api"},
            "exp_annotations": {
                "summary": "100% of the requests to route api fail",
                "description": 'By the app or on the way to it: devhost_failures_total{route="api"} tells which.',
            },
        }
    ]
    rules = Path(__file__).parents[2] / "deploy" / "alerts.yml"
    test = tmp_path / "test.yml"
    said = json.dumps(alerts if failures else [])
    test.write_text(RULE_TEST.format(rules=rules, series=json.dumps(series), alerts=said))
    done = subprocess.run(["promtool", "test", "rules", str(test)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def requests_total(found: Samples) -> dict[str, int]:
    """Return the requests of each series, by its name and labels as Prometheus writes them."""
    return {
        "devhost_requests_total{" + ",".join(f'{key}="{value}"' for key, value in labels) + "}": int(count)
        for (name, labels), count in found.values.items()
        if name == "devhost_requests_total"
    }


def test_client_connections_by_listener(shared: Shared) -> None:
    shared.publish(2, server={"bind": ["127.0.0.1:7777", "unix:/run/gateway.sock"]})
    for slot in (0, 1):
        row = shared.worker(slot).row
        row[Slot.LISTENERS : Slot.LISTENERS + 4] = memoryview(
            b"".join(n.to_bytes(8, "little") for n in (1, 2, 3, 4))
        ).cast("q")
        row[Slot.ACCEPTED], row[Slot.OVERLOADED], row[Slot.LOG_DROPPED] = 100, 5, 1
    found = scraped(shared)
    assert found("devhost_connections", listener="127.0.0.1:7777", state="active") == 2
    assert found("devhost_connections", listener="127.0.0.1:7777", state="idle") == 4
    assert found("devhost_connections", listener="unix:/run/gateway.sock", state="active") == 6
    assert found("devhost_connections", listener="unix:/run/gateway.sock", state="idle") == 8
    assert found("devhost_connections_accepted_total") == 200
    assert found("devhost_connections_refused_total") == 10
    assert found("devhost_access_log_dropped_total") == 2


def test_the_gateway_itself(shared: Shared) -> None:
    shared.worker(0)
    shared.worker(1, state=WorkerState.BOOTING)
    shared.worker(2, state=WorkerState.DRAINING)
    shared.board[Board.RESTARTS : Board.RESTARTS + 2] = memoryview(b"\3" + b"\0" * 7 + b"\4" + b"\0" * 7).cast("q")
    shared.board[Board.RELOADS_OK], shared.board[Board.RELOADS_FAILED] = 8, 2
    found = scraped(shared)
    assert [found("devhost_workers", state=state) for state in ("booting", "ready", "draining")] == [1, 1, 1]
    assert found("devhost_worker_restarts_total", reason="exited") == 3
    assert found("devhost_worker_restarts_total", reason="killed") == 4
    assert found("devhost_worker_restarts_total", reason="boot") == 0
    assert found("devhost_config_generation") == 1
    assert found("devhost_config_reloads_total", result="ok") == 8
    assert found("devhost_config_reloads_total", result="failed") == 2
    assert found("devhost_build_info", version="1.2.3") == 1


def test_processes_of_the_slots(shared: Shared) -> None:
    found = scraped(shared)
    assert found("devhost_worker_cpu_seconds_total", slot="0") == 3.75
    assert found("devhost_worker_resident_memory_bytes", slot="0") == 52_428_800
    assert found("devhost_worker_open_fds", slot="0") == 17
    assert found("devhost_worker_start_time_seconds", slot="0") == 1_700_000_000.25
    assert found("devhost_worker_cpu_seconds_total", slot="1") == 0.5
    assert found("devhost_worker_open_fds", slot="1") is None


def test_counters_never_go_down_when_workers_die(busy: Shared) -> None:
    before = scraped(busy)
    for slot in (0, 1):
        busy.bury(slot)
    dead = scraped(busy)
    assert dead.counters == before.counters
    assert dead("devhost_requests_in_flight", route="api") == 0
    fill(busy, busy.worker(1))
    after = scraped(busy)
    assert all(after.counters[series] >= count for series, count in before.counters.items())
    assert after("devhost_requests_total", route="api", method="GET", code="200") == 3


def test_a_reload_keeps_the_counts_of_the_routes_that_stay(busy: Shared) -> None:
    before = scraped(busy).counters
    busy.publish(2)
    assert scraped(busy).counters == before


# --- speed -----------------------------------------------------------------------------------------------------------


@pytest.mark.benchmark
@pytest.mark.parametrize("as_openmetrics", [False, True], ids=["text", "openmetrics"])
def test_a_scrape_of_500_busy_routes(benchmark: Any, as_openmetrics: bool) -> None:
    names = [f"route-{number}" for number in range(500)]
    shared = Shared()
    shared.publish(
        routes={name: {"name": name, "hosts": [f"{name}.localhost"], "upstream": name} for name in names},
        upstreams={name: {"targets": [f"http://127.0.0.1:{9000 + at}"]} for at, name in enumerate(names)},
    )
    for slot in (0, 1):
        worker = shared.worker(slot, os.getpid())
        for name in names:
            for status in (200, 201, 304, 404, 502):
                worker.request(name, status=status)
                worker.exchange(name, f"http://127.0.0.1:{9000 + names.index(name)}", status=status)
            worker.row[worker.upstream(name) + UpstreamCell.CONNECT_DURATION] = 1
            worker.row[worker.route(name) + RouteCell.FAILURES] = 1
    scrape = Scrape(shared.view(), USAGES, "1.2.3")
    text = benchmark(render, scrape, as_openmetrics)
    assert text.count(b"\n") > 35_000
