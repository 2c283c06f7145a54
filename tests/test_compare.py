"""The comparison: what it reads is read right, what it shows follows from what was measured, and it runs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.comparing import (
    charts,
    cli,
    lab,
    loads,
    machine,
    paced,
    proc,
    proxies,
    report,
    results,
    rounds,
    websocket,
)
from loadtests.comparing import works as works_module
from loadtests.comparing import wrk as wrk_module
from loadtests.comparing.percentiles import percentile
from loadtests.comparing.proxies import GATEWAY, PROXIES, Setting, UnavailableError, Variant
from loadtests.comparing.results import CaseResult, FormatError, Results, WorkResult, median, ratio, verdict
from loadtests.comparing.works import TARGETS, WORKS, Case, Target, Work
from tests.support.net import free_port
from tests.support.waiting import wait_until

CHECKOUT = Path(__file__).parent.parent
COMPARE = CHECKOUT / "loadtests" / "compare.py"

needs_nginx_and_wrk = pytest.mark.skipif(
    not (shutil.which("nginx") and shutil.which("wrk") and shutil.which("taskset")),
    reason="nginx, wrk or taskset is not installed",
)


# -- wrk --------------------------------------------------------------------------------------------------------------

WRK_LINE = (
    'comparing {"requests": 1000, "seconds": 2.0, "bytes": 66000, "p50": 0.001, "p99": 0.002, "p999": 0.004, '
    '"connect": 1, "read": 2, "write": 3, "status": 4, "timeout": 5}'
)


def test_wrks_line_is_found_among_what_else_it_says() -> None:
    sample = wrk_module.parse(f"Running 2s test @ http://x/\n  1 threads and 32 connections\n{WRK_LINE}\n")
    assert (sample.requests, sample.rps) == (1000, 500)
    assert (sample.p50, sample.p99, sample.p999) == (0.001, 0.002, 0.004)
    assert (sample.errors, sample.refused) == (15, 4)


def test_no_line_is_an_error_that_says_what_wrk_said() -> None:
    with pytest.raises(wrk_module.LoadError, match="unable to connect"):
        wrk_module.parse("", "unable to connect to 127.0.0.1:1 Connection refused")


def test_every_mode_that_a_work_uses_is_in_the_script() -> None:
    known = set(re.findall(r"^function modes\.(\w+)", wrk_module.SCRIPT.read_text(), re.MULTILINE))
    used = {case.load.mode.split()[0] for w in WORKS.values() for case in w.cases if isinstance(case.load, loads.Wrk)}
    assert used <= known


class Recorder(BaseHTTPRequestHandler):
    """Keeps the heads and bodies of requests."""

    protocol_version = "HTTP/1.1"
    wbufsize = 65_536  # a head and a body in two writes would wait for each other's acknowledgement
    seen: ClassVar[list[tuple[str, dict[str, str], bytes]]]

    def do_GET(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((f"{self.command} {self.path}", dict(self.headers), body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815  the name http.server looks for

    def _chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return data

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@needs_nginx_and_wrk
@pytest.mark.parametrize(
    ("mode", "line", "size"),
    [("browser", "GET /items/", 0), ("chunked 2000", "POST /", 2000), ("post 2000", "POST /", 2000)],
)
def test_wrk_sends_what_a_mode_says(mode: str, line: str, size: int) -> None:
    class Seen(Recorder):
        seen: ClassVar[list[tuple[str, dict[str, str], bytes]]] = []

    with serving(Seen) as port:
        command = wrk_module.command(
            f"http://127.0.0.1:{port}/", connections=1, seconds=1, mode=mode, host="bench.test"
        )
        sample = wrk_module.run(command, str(max(os.sched_getaffinity(0))), 1)
    assert sample.requests > 3
    assert sample.errors == 0
    assert all(shown.startswith(line) for shown, _, _ in Seen.seen)
    assert all(headers["Host"] == "bench.test" and len(body) == size for _, headers, body in Seen.seen)
    if mode == "browser":
        assert len({shown for shown, _, _ in Seen.seen}) == len(Seen.seen)
        assert len({headers["Cookie"] for _, headers, _ in Seen.seen}) == len(Seen.seen)
    if mode == "post 2000":
        json.loads(Seen.seen[0][2])


@needs_nginx_and_wrk
def test_wrk_pauses_between_requests_and_tells_refusals_from_other_errors() -> None:
    with serving(answering(200, 503)) as port:
        command = wrk_module.command(f"http://127.0.0.1:{port}/", connections=2, seconds=1, mode="think 50")
        sample = wrk_module.run(command, str(max(os.sched_getaffinity(0))), 1)
    assert 4 <= sample.requests <= 90  # 40 on average
    assert sample.refused == sample.errors
    assert abs(2 * sample.refused - sample.requests) <= 2


# -- /proc ------------------------------------------------------------------------------------------------------------


def stat_line(pid: int, parent: int, ticks: tuple[int, int, int, int] = (0, 0, 0, 0), name: str = "x") -> str:
    before = f"S {parent} 1 1 0 -1 4194560 100 0 0 0"
    return f"{pid} ({name}) {before} {' '.join(map(str, ticks))} 20 0 1 0 100 1000 10\n"


@pytest.mark.parametrize("name", ["nginx", "(sd-pam)", "a) S 1 2 (b", "tmux: server"])
def test_a_stat_line_is_read_whatever_the_name(name: str) -> None:
    stat = proc.Stat.parse(stat_line(7, 3, (1, 2, 30, 40), name))
    assert (stat.pid, stat.parent, stat.name, stat.ticks) == (7, 3, name, 73)


def test_cpu_time_is_that_of_the_tree_and_its_dead(tmp_path: Path) -> None:
    hertz = proc.TICKS_PER_SECOND
    tree = [(1, 0, (hertz,) * 4), (10, 1, (hertz, 0, 0, 0)), (11, 10, (0, hertz, hertz, 0)), (12, 11, (0, 0, 0, hertz))]
    for pid, parent, ticks in tree:
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(stat_line(pid, parent, ticks))
    (tmp_path / "self").mkdir()
    assert proc.cpu_seconds(10, tmp_path) == 4
    assert proc.cpu_seconds(11, tmp_path) == 3
    assert proc.cpu_seconds(99, tmp_path) == 0


def test_what_a_dead_child_spent_is_not_lost() -> None:
    burn = "import time\nuntil = time.process_time() + 0.2\nwhile time.process_time() < until: pass"
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert proc.pids(process.pid) == [process.pid]
        assert 0.19 <= proc.cpu_seconds(process.pid) < 2
        process.communicate(b"\n")


def test_memory_of_this_process_is_plausible() -> None:
    memory = proc.memory(os.getpid())
    assert 5 << 20 < memory.pss <= memory.rss < 8 << 30
    assert proc.memory(2**22 + 1) == proc.Memory(0, 0)


def test_accepted_connections_are_counted_by_process_and_port() -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        kept = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(5)]
        kept += [stack.enter_context(listener.accept()[0]) for _ in range(3)]
        assert proc.connections(os.getpid(), port) == 3
        assert proc.connections(os.getppid(), port) == 0


def test_cores_keep_the_proxy_and_the_load_apart() -> None:
    assert machine.Cores.plan({0, 1}) == machine.Cores("0", "0,1", "1", pair_shares=True)
    assert machine.Cores.plan({3, 5, 6, 9}) == machine.Cores("3", "3,6", "5", pair_shares=False)
    with pytest.raises(ValueError, match="one core is not enough"):
        machine.Cores.plan({4})


# -- numbers ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.floats(0.001, 1))
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    # In whole numbers of values: a share times a length is rarely exact.
    assert sum(value <= found for value in ordered) >= share * len(ordered) - 1e-6
    assert sum(value < found for value in ordered) < share * len(ordered) + 1e-6


def test_percentiles_by_hand() -> None:
    ordered = [float(number) for number in range(1, 101)]
    assert [percentile(ordered, share) for share in (0.5, 0.99, 0.999, 1)] == [50, 99, 100, 100]
    assert percentile([], 0.5) == 0


def test_evenness_is_measured_from_the_worst() -> None:
    assert loads.spread_of([100, 100])["unevenness"] == 0
    assert loads.spread_of([8, 192])["unevenness"] == pytest.approx(0.92)
    with pytest.raises(wrk_module.LoadError):
        loads.spread_of([0, 0])


def test_nothing_answered_is_an_error_not_a_division() -> None:
    with pytest.raises(wrk_module.LoadError, match="not a single request"):
        loads.per_request(1.0, 0)


# -- the paced load ---------------------------------------------------------------------------------------------------

RESPONSE = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello"


@given(st.integers(0, len(RESPONSE)))
def test_only_a_whole_response_is_complete(size: int) -> None:
    assert paced.complete(RESPONSE[:size]) == (size == len(RESPONSE))


def answering(*statuses: int) -> type[BaseHTTPRequestHandler]:
    class Handler(Recorder):
        seen: ClassVar[list[tuple[str, dict[str, str], bytes]]] = []

        def do_GET(self) -> None:
            status = statuses[len(self.seen) % len(statuses)]
            self.seen.append((self.path, dict(self.headers), b""))
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

    return Handler


def paced_outcome(port: int, rate: float, seconds: float, connections: int = 8) -> paced.Outcome:
    with contextlib.closing(paced.Pacer(port, "bench.test", connections)) as pacer:
        pacer.run(rate, seconds, random.Random(1))
        return pacer.outcome


def test_the_rate_is_kept_and_answers_are_told_apart() -> None:
    with serving(answering(200, 503)) as port:
        outcome = paced_outcome(port, 300, 0.6)
    answered = len(outcome.served) + len(outcome.refused)
    assert 140 <= answered + outcome.failed + outcome.unsent <= 220  # 180 on average, a Poisson process
    assert answered > 90
    assert abs(len(outcome.served) - len(outcome.refused)) <= 8  # eight connections ask at once
    assert outcome.failed == 0


def test_a_stall_is_seen_by_all_who_were_due_during_it() -> None:
    class Stalling(Recorder):
        seen: ClassVar[list[tuple[str, dict[str, str], bytes]]] = []

        def do_GET(self) -> None:
            if not self.seen:
                time.sleep(0.3)
            super().do_GET()

    with serving(Stalling) as port:
        outcome = paced_outcome(port, 200, 0.6, connections=1)
    # With a single connection, the 60 requests that were due in those 0.3 s all waited: most of them for over 0.1 s.
    assert sum(latency > 0.1 for latency in outcome.served) > 25


def test_answers_that_are_neither_are_failures() -> None:
    with serving(answering(500)) as port:
        outcome = paced_outcome(port, 100, 0.2)
    assert outcome.failed > 5
    assert not outcome.served


def test_nobody_there_is_an_error_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced, "_STRAGGLERS_SECONDS", 0.2)
    with pytest.raises(ConnectionError, match="no connection could be opened"):
        paced_outcome(free_port(), 100, 0.1, connections=1)


# -- WebSockets -------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=6), st.integers(1, 50))
def test_frames_survive_any_cutting(messages: list[tuple[bytes, bool]], piece: int) -> None:
    wire = b"".join(websocket.frame(2, payload, b"mask" if masked else b"") for payload, masked in messages)
    buffer, taken = bytearray(), []
    for at in range(0, len(wire), piece):
        buffer += wire[at : at + piece]
        taken += [payload for _, payload in websocket.take_frames(buffer)]
    assert taken == [payload for payload, _ in messages]
    assert not buffer


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_frames_of_every_length_form(size: int) -> None:
    payload = os.urandom(size)
    assert list(websocket.take_frames(bytearray(websocket.frame(1, payload, b"\1\2\3\4")))) == [(0x81, payload)]


def test_the_handshake_answer_is_that_of_the_rfc() -> None:
    assert websocket.accept_of(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 §1.3


@contextlib.contextmanager
def echo(make: Callable[[], websocket.Echo]) -> Iterator[int]:
    """Run an echo on a loop of its own."""
    loop, port, ready = asyncio.new_event_loop(), free_port(), threading.Event()
    made: list[websocket.Echo] = []

    def remembered() -> websocket.Echo:
        made.append(make())
        return made[-1]

    async def serve() -> None:
        server = await loop.create_server(remembered, "127.0.0.1", port)
        ready.set()
        with contextlib.suppress(asyncio.CancelledError):
            await server.serve_forever()
        for connection in made:
            connection.stop()
        await asyncio.sleep(0)  # the turn in which they are closed

    def run() -> None:
        with contextlib.closing(loop):
            loop.run_until_complete(task)

    task = loop.create_task(serve())
    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(5)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()


@pytest.mark.parametrize("size", [64, 65_000])
def test_echoes_are_counted(size: int) -> None:
    with echo(websocket.Echo) as port:
        measured = asyncio.run(websocket.make_load(port, 4, size, 0.2))
    assert measured["errors"] == 0
    assert measured["requests"] > 4
    assert 0 < measured["p50"] <= measured["p99"] <= measured["p999"] < 0.2


def test_a_wrong_echo_is_an_error() -> None:
    class Wrong(websocket.Echo):
        def data_received(self, data: bytes) -> None:
            if self._open:
                self._transport.write(websocket.frame(2, b"x" * 64))
            else:
                super().data_received(data)

    with echo(Wrong) as port:
        measured = asyncio.run(websocket.make_load(port, 1, 64, 0.1))
    assert measured["errors"] == measured["requests"] > 0


def test_no_upgrade_is_an_error() -> None:
    with serving(answering(200)) as port, pytest.raises(ConnectionError, match=r"no upgrade: b'HTTP/1\.1 200"):
        asyncio.run(websocket.make_load(port, 1, 64, 0.1))


# -- the proxies' configurations --------------------------------------------------------------------------------------


def settings_of(proxy: proxies.Proxy, directory: Path) -> list[Setting]:
    """The plain configuration, and the one with everything that the proxy has one for."""
    full = Variant(
        workers=2 if "workers" in proxy.knows else 1,
        routes=3 if "routes" in proxy.knows else 1,
        targets=3 if "targets" in proxy.knows else 1,
        sheds="sheds" in proxy.knows,
        clients=5000,
    )
    found: list[Setting] = []
    for variant in (Variant(), full):
        place = directory / str(len(found))
        place.mkdir()
        found.append(Setting(free_port(), 9, place, variant))
    return found


@pytest.mark.parametrize("name", [name for name, proxy in PROXIES.items() if proxy.check])
def test_configurations_are_accepted_by_the_program_itself(name: str, tmp_path: Path) -> None:
    proxy = PROXIES[name]
    try:
        program = proxy.executable()
    except UnavailableError as error:
        pytest.skip(str(error))
    assert proxy.check is not None
    for setting in settings_of(proxy, tmp_path):
        assert proxy.supports(setting.variant)
        proxy.write(setting)
        done = subprocess.run(
            [program, *proxy.check(setting)],
            capture_output=True,
            text=True,
            check=False,
            cwd=setting.directory,
            env={**os.environ, **proxy.environment(setting)},
        )
        assert done.returncode == 0, (setting.variant, done.stdout, done.stderr)


def test_a_variant_without_a_configuration_is_refused() -> None:
    assert not PROXIES["httpx"].supports(Variant(workers=2))
    assert not PROXIES["nginx"].supports(Variant(sheds=True))
    assert all(proxy.supports(Variant()) for proxy in PROXIES.values())


def test_a_missing_program_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAPROXY", "no-such-haproxy")
    with pytest.raises(UnavailableError, match=r"haproxy: no-such-haproxy is not installed \(or name it: HAPROXY="):
        PROXIES["haproxy"].executable()


def test_a_named_program_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CADDY", sys.executable)
    assert PROXIES["caddy"].executable() == sys.executable


# -- what is measured -------------------------------------------------------------------------------------------------


def test_works_and_sets_name_only_what_there_is() -> None:
    for name, work in WORKS.items():
        assert name == work.name
        assert work.cases
        assert len({case.label for case in work.cases}) == len(work.cases)
        assert set(work.proxies) <= set(PROXIES)
        assert not work.axis or all(case.x for case in work.cases)
        assert all(any(PROXIES[proxy].supports(case.variant) for proxy in work.proxies) for case in work.cases)
    assert all(set(members) <= set(WORKS) for members in works_module.SETS.values())


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.sentence)
def test_a_target_is_about_something_that_is_measured(target: Target) -> None:
    work = WORKS[target.work]
    labels = {case.label for case in work.cases}
    assert target.case in labels
    assert target.peer_case in {None, *labels}
    assert target.peer is None or target.peer in work.proxies
    assert target.figure in works_module.FIGURES
    assert target.work in works_module.SETS["table"]


def test_each_round_begins_with_another_one() -> None:
    entries = [(0, Case(str(number), loads.Rest()), None) for number in range(3)]
    orders = [[case.label for _, case, _ in rounds.turned(entries, number)] for number in range(4)]  # type: ignore[arg-type]
    assert orders == [["0", "1", "2"], ["1", "2", "0"], ["2", "0", "1"], ["0", "1", "2"]]


# -- results ----------------------------------------------------------------------------------------------------------


def rounds_of(*cpu: float, first: int = 0) -> results.Rounds:
    return [
        {"round": first + number, "requests": 1000, "cpu_us": value, "rps": 1e6 / value, "p99": 0.002, "errors": number}
        for number, value in enumerate(cpu)
    ]


def example(**more: object) -> Results:
    small = WorkResult("Small GET", "request", None, "", [CaseResult("", None, "wrk -c32", "")])
    small.cases[0].results = {
        GATEWAY: rounds_of(50, 60, 70),
        "nginx": rounds_of(20, 20, 30),
        "nginx+log": rounds_of(30, 30, 30),
        "httpx": rounds_of(4000, 4000, 4000),
    }
    small.skipped["envoy"] = "envoy: envoy is not installed"
    grown = WorkResult("By <routes>", "request", "routes", "A note.", [])
    for x in (1, 100, 10_000):
        grown.cases.append(CaseResult(f"{x:,}", x, f"wrk hosts {x}", "", {GATEWAY: rounds_of(60 + x / 1000)}))
    values: dict[str, object] = {
        "made": "2026-11-21T08:00:00+00:00",
        "command": "python loadtests/compare.py run",
        "revision": "abc1234",
        "rounds": 3,
        "seconds": 1.0,
        "machine": {**machine.description(), "load_before": 0.1},
        "versions": {GATEWAY: "0.1.0", "nginx": "1.22.1"},
        "works": {"small-get": small, "routes": grown},
    }
    return Results(**{**values, **more})  # type: ignore[arg-type]  # made of parts


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "results.json"
    example().save(path)
    assert Results.load(path) == example()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 0}', '{"format": 1, "works": {"a": 1}}'])
def test_another_file_is_refused_in_a_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(FormatError, match=r"x\.json: "):
        Results.load(tmp_path / "x.json")


def test_ratios_are_taken_within_a_round() -> None:
    own, base = rounds_of(10, 200, 30), rounds_of(10, 100, 10)
    assert ratio(own, base, "cpu_us") == 2
    assert ratio(own, base[1:], "cpu_us") == 2.5, "a round that one of them missed is left out"
    assert ratio(own, [], "cpu_us") is None
    assert median(own, "cpu_us") == 30
    assert median(own, "unheard-of") is None


@pytest.mark.parametrize(("limit", "at_least", "met"), [(2.0, False, True), (1.9, False, False), (1.9, True, True)])
def test_a_verdict_follows_from_the_figures(limit: float, at_least: bool, met: bool) -> None:
    target = Target("small-get", "cpu_us", limit, "nginx+log", at_least=at_least)
    found = verdict(target, example(), GATEWAY)
    assert found.measured == 2
    assert found.met is met


def test_what_was_not_measured_has_no_verdict() -> None:
    for target in (Target("small-get", "cpu_us", 1, "caddy"), Target("ws-64", "cpu_us", 2, "nginx")):
        assert verdict(target, example(), GATEWAY).met is None


def test_a_case_can_be_held_against_another_of_its_own() -> None:
    target = Target("routes", "cpu_us", 1.05, GATEWAY, case="10,000", peer_case="1")
    assert verdict(target, example(), GATEWAY).measured == pytest.approx(70 / 60.001)


# -- what is shown ----------------------------------------------------------------------------------------------------


def test_the_page_shows_what_was_measured_and_nothing_else() -> None:
    page = report.page(example(), "results.json")
    assert "| devhost | 60 | 2.50 | 2.00 | 16,700 |" in page
    assert "| nginx+log | 30 | 1.50 | 1.00 |" in page
    assert "| Small GET, 32 connections: CPU at most 2 × nginx+log | 2 | yes |" in page
    assert "| Small GET, 32 connections: CPU at most 0.65 × envoy | – | not measured |" in page
    assert "`abc1234`" in page
    assert "* envoy: envoy is not installed" in page
    assert "A look, not a result" in page
    assert all(target.sentence in page for target in TARGETS)
    assert "/tmp" not in page
    assert str(CHECKOUT) not in page


def test_another_figure_makes_another_page() -> None:
    changed = example()
    changed.works["small-get"].cases[0].results[GATEWAY] = rounds_of(61, 61, 61)
    page = report.page(changed, "results.json")
    assert "| devhost | 61 |" in page
    assert "| Small GET, 32 connections: CPU at most 2 × nginx+log | 2.03 | **no** |" in page


def test_every_table_is_rectangular() -> None:
    lines = report.page(example(), "results.json").splitlines()
    for line, following in itertools.pairwise(lines):
        if line.startswith("|") and following.startswith("|"):
            assert line.count("|") == following.count("|")


def test_a_page_without_figures_has_none() -> None:
    page = report.page(example(works={}), "")
    assert "No figures yet" in page
    assert page.count("not measured") == len(TARGETS)
    assert "![" not in page
    assert "abc1234" not in page


def test_enough_rounds_are_not_called_a_look() -> None:
    assert "A look" not in report.page(example(rounds=5), "results.json")


def test_a_table_for_a_terminal_is_aligned_and_names_failures() -> None:
    work = example().works["small-get"]
    work.failures.append("caddy: not a single request was answered")
    shown = report.text("small-get", work)
    lines = shown.splitlines()
    assert lines[0] == "small-get: Small GET"
    assert {lines[row].rindex(" ") for row in (2, 3, 4)} == {len(lines[2]) - 2}
    assert lines[-2:] == ["  caddy: not a single request was answered", "  envoy: envoy is not installed"]


def test_the_page_its_charts_and_the_results_are_written_together(tmp_path: Path) -> None:
    source = tmp_path / "mine.json"
    example().save(source)
    written = report.publish(example(), source, tmp_path / "docs")
    assert all(path.exists() for path in written)
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    shown = set(re.findall(r"!\[[^]]*\]\((benchmarks/[^)]+)\)", page))
    assert shown == {f"benchmarks/{path.name}" for path in written if path.suffix == ".svg"}
    again = Results.load(tmp_path / "docs" / "benchmarks" / "mine.json")
    assert report.page(again, "mine.json") == page


def elements(svg: str, tag: str) -> list[ET.Element]:
    return ET.fromstring(svg).findall(f"{{http://www.w3.org/2000/svg}}{tag}")


def test_bars_are_as_long_as_their_values_and_a_cut_one_says_so() -> None:
    rows = [charts.Bar("a", 10), charts.Bar("b & <b>", 20, first=True), charts.Bar("c", 4000)]
    svg = charts.bars("Title & more", "µs", rows)
    lengths = [float(bar.attrib["width"]) for bar in elements(svg, "rect")]
    assert lengths[1] == pytest.approx(2 * lengths[0], abs=0.2)
    assert lengths[2] < 20 * lengths[0]
    texts = [text.text for text in elements(svg, "text")]
    assert {"b & <b>", "//", "4,000", "10", "20"} <= set(texts)
    assert texts.count("//") == 1
    assert "prefers-color-scheme: dark" in svg


def test_lines_rise_where_their_values_rise_and_stay_on_the_page() -> None:
    svg = charts.lines(
        "T", "routes", "µs", [charts.Line("a", ((1, 10), (100, 20), (10_000, 40))), charts.Line("b", ())]
    )
    (path,) = elements(svg, "polyline")
    points = [tuple(map(float, pair.split(","))) for pair in path.attrib["points"].split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    assert points[1][0] - points[0][0] == pytest.approx(points[2][0] - points[1][0], abs=0.2), "logarithmic"
    assert all(0 <= x <= charts.WIDTH and 0 <= y <= 320 for x, y in points)


def test_charts_of_nothing_are_none() -> None:
    assert report.draw(example(works={})) == {}
    for svg in report.draw(example()).values():
        ET.fromstring(svg)


@given(st.floats(1e-6, 1e9))
def test_an_axis_ends_a_little_above_the_most(value: float) -> None:
    assert value <= charts.nice(value) * (1 + 1e-9) <= value * 2.5


@given(st.lists(st.floats(0, 500), max_size=10))
def test_labels_never_overlap(places: list[float]) -> None:
    moved = charts.spread_out(places, 16)
    ordered = sorted(moved)
    assert all(below - above >= 16 - 1e-6 for above, below in itertools.pairwise(ordered))
    assert all(new >= old for new, old in zip(moved, places, strict=True))


# -- the command line and the laboratory ------------------------------------------------------------------------------


def test_works_are_chosen_by_name_and_set_each_once() -> None:
    assert [work.name for work in cli.chosen(("ws-64", "growth", "routes"), ())] == [
        *("ws-64", "connections", "routes", "one-of-routes", "headers", "targets")
    ]
    assert [work.proxies for work in cli.chosen(("small-get",), ("nginx", "devhost"))] == [("devhost", "nginx")]
    assert cli.chosen(("overload",), ("nginx",)) == []
    with pytest.raises(click.UsageError, match="'small' is no work and no set"):
        cli.chosen(("small",), ())


def test_the_place_of_the_results_is_not_recorded() -> None:
    assert cli.without_file(["run", "--json", "/home/me/x.json", "--quick"]) == ["run", "--quick"]
    assert cli.without_file(["run", "--json=/home/me/x.json"]) == ["run"]


@needs_nginx_and_wrk
def test_a_proxy_that_does_not_start_leaves_the_others_to_be_measured(tmp_path: Path) -> None:
    broken = dataclasses.replace(
        PROXIES["nginx"], name="broken", files=lambda _: {"nginx.conf": "nonsense;"}, environment=lambda _: {}
    )
    work = Work("x", "X", (Case("", loads.Spread(3)),))
    plan = rounds.Plan(2, 1.0, machine.Cores.available(), lambda _: None)
    result = rounds.measure(work, [broken, PROXIES["nginx"]], plan)
    assert [measured["connections"] for measured in result.cases[0].results["nginx"]] == [3, 3]
    assert "broken" not in result.cases[0].results
    (failure,) = result.failures
    assert "it ended with 1" in failure
    assert 'unknown directive "nonsense"' in failure


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(COMPARE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)


def test_a_wrong_name_is_a_sentence_and_usage_is_two() -> None:
    done = compare("run", "nonsense")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "is no work and no set" in done.stderr


def test_a_process_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "x.out").write_text("bind() failed")

    def dead() -> bool:
        raise lab.LabError("it ended with 1")

    with pytest.raises(lab.LabError, match="nginx: it ended with 1; it said:\nbind"):
        lab.wait_for(dead, "nginx", tmp_path / "x.out")
    with pytest.raises(lab.LabError, match=r"x: not ready after 0\.05 s"):
        lab.wait_for(lambda: False, "x", patience=0.05)


def test_stopping_takes_a_stubborn_family_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "STOP_SECONDS", 0.3)
    script = "trap '' TERM; sleep 60 & echo; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        _, child = proc.pids(process.pid)
        lab.stop(process)
        assert process.returncode == -signal.SIGKILL
        wait_until(lambda: not proc.title(child), 5, "the child being gone")


@needs_nginx_and_wrk
def test_a_small_comparison_runs_and_is_reported(tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("the comparison needs two cores")
    kept = tmp_path / "results.json"
    done = compare(
        *("run", "down-1k", "--rounds", "1", "--seconds", "1", "--proxy", "devhost", "--proxy", "nginx"),
        *("--json", str(kept)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = Results.load(kept).works["down-1k"].cases[0].results
    assert set(rows) == {"devhost", "nginx"}
    for (measured,) in rows.values():
        assert measured["requests"] > 100
        assert measured["errors"] == 0
        assert 2 < measured["cpu_us"] < 20_000
        assert measured["rss"] >= measured["pss"] > 1 << 20
        assert statistics.median([measured["p50"], measured["p99"], measured["p999"]]) == measured["p99"]
    done = compare("report", str(kept), "--docs", str(tmp_path / "docs"))
    assert done.returncode == 0, done.stderr
    assert "1 KB down" in (tmp_path / "docs" / "benchmarks.md").read_text()
