"""The kinds of load: each puts work on one running proxy and says what came of it.

A measurement is a flat table of numbers in SI units (seconds, bytes), the same in the JSON file.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from . import proc, wrk
from .lab import Contender, generator, generator_environment
from .proxies import GATEWAY, Variant
from .wrk import LoadError

Measurement = dict[str, float]
_GRACE = 30.0
_PEAK_SECONDS = 2
_PEAK_CONNECTIONS = 32
_PROBE_RATE, _PROBE_CONNECTIONS = 200, 200
_ANSWER_SECONDS = 0.05
"""What an answer takes under overload, by guess: what is really offered is counted."""


Peaks = dict[tuple[str, Variant], float]
"""Requests per second that a proxy reached at most."""


@dataclass(frozen=True)
class Occasion:
    """The circumstances of one measurement."""

    contender: Contender
    cores: str
    seconds: float
    round: int
    peaks: Peaks
    """Filled by the loads that need it."""


class Load(Protocol):
    """One kind of load."""

    def measure(self, occasion: Occasion) -> Measurement:
        """Put the load on. Raises `LoadError`."""

    def described(self, seconds: float) -> str:
        """The command that does the same by hand, or what is done in words."""


@dataclass(frozen=True)
class Wrk:
    """As many requests as the proxy answers, from connections that each wait for their answer."""

    path: str = "/"
    connections: int = 32
    mode: str = "get"

    def measure(self, occasion: Occasion) -> Measurement:
        """Run wrk."""
        port, host = occasion.contender.port, occasion.contender.host
        words = self._words(f"http://127.0.0.1:{port}{self.path}", whole(occasion.seconds), host)
        before = occasion.contender.cpu_seconds()
        sample = wrk.run(words, occasion.cores, occasion.seconds)
        spent = occasion.contender.cpu_seconds() - before
        return {
            "requests": sample.requests,
            "seconds": sample.seconds,
            "rps": sample.rps,
            "p50": sample.p50,
            "p99": sample.p99,
            "p999": sample.p999,
            "errors": sample.errors,
            "cpu_us": per_request(spent, sample.requests),
        }

    def _words(self, url: str, seconds: int, host: str) -> list[str]:
        return wrk.command(url, connections=self.connections, seconds=seconds, mode=self.mode, host=host)

    def described(self, seconds: float) -> str:
        """wrk's command line, with the script by its name alone."""
        words = self._words(f"http://PROXY{self.path}", whole(seconds), "bench.test")
        return shlex.join(word.rpartition("/")[2] if word.endswith("wrk.lua") else word for word in words)


@dataclass(frozen=True)
class WebSocket:
    """Messages that are echoed, one at a time on each connection."""

    size: int
    connections: int = 32

    def measure(self, occasion: Occasion) -> Measurement:
        """Run the clients as a process."""
        words = ["load", str(occasion.contender.port), str(self.connections), str(self.size), f"{occasion.seconds:g}"]
        return _generated(occasion, "websocket", words)

    def described(self, seconds: float) -> str:
        """The clients' command line."""
        return f"python -m loadtests.comparing.websocket load PORT {self.connections} {self.size} {seconds:g}"


@dataclass(frozen=True)
class Paced:
    """A fixed rate: a share of what this proxy was found to answer at most, or of what the gateway was if that is less.

    So nothing is asked at a rate at which the load itself would be at its end, and who is faster has it easier.
    """

    share: float
    connections: int

    def measure(self, occasion: Occasion) -> Measurement:
        """Find the peak once, then run the pacer as a process."""
        contender = occasion.contender
        peak = known_peak(occasion)
        rate = self.share * min(peak, occasion.peaks.get((GATEWAY, contender.variant), peak))
        measured = _generated(occasion, "paced", _paced_words(occasion, rate, self.connections, occasion.seconds))
        return {**measured, "peak": peak}

    def described(self, seconds: float) -> str:
        """The pacer's command line."""
        rate = f"{self.share:g}×PEAK"
        return f"python -m loadtests.comparing.paced PORT bench.test {rate} {self.connections} {seconds:g} SEED"


def _paced_words(occasion: Occasion, rate: float, connections: int, seconds: float) -> list[str]:
    contender = occasion.contender
    numbers = (f"{rate:.0f}", connections, f"{seconds:g}", occasion.round)
    return [str(contender.port), contender.host, *map(str, numbers)]


@dataclass(frozen=True)
class Scraped:
    """A fixed rate while the gateway's metrics are read at an interval, or not at all for comparison."""

    rate: float
    connections: int
    every: float | None
    """Seconds between two scrapes."""

    def measure(self, occasion: Occasion) -> Measurement:
        """Ask for each route once or more, so that each has its series, then run the pacer and scrape beside it."""
        contender = occasion.contender
        url = f"http://127.0.0.1:{contender.port}/"
        mode = f"hosts {contender.variant.routes}"
        wrk.run(
            wrk.command(url, connections=8, seconds=1, mode=mode, host=contender.host), occasion.cores, _PEAK_SECONDS
        )
        admin = contender.directory / "admin.sock"
        before = series(admin)
        over = threading.Event()
        with ThreadPoolExecutor(1) as threads:
            scraping = threads.submit(self._scrape, admin, over)
            try:
                words = _paced_words(occasion, self.rate, self.connections, occasion.seconds)
                measured = _generated(occasion, "paced", words)
            finally:
                over.set()
        return {**measured, "series": before, "scrapes": scraping.result()}

    def _scrape(self, admin: Path, over: threading.Event) -> int:
        scrapes = 0
        while not over.wait(self.every):
            series(admin)
            scrapes += 1
        return scrapes

    def described(self, seconds: float) -> str:
        """The pacer's command line, and what is done beside it."""
        pacer = f"python -m loadtests.comparing.paced PORT bench.test {self.rate:g} {self.connections} {seconds:g} SEED"
        return pacer if self.every is None else f"{pacer}, and GET /metrics every {self.every:g} s"


def series(admin: Path) -> int:
    """Read a gateway's metrics; how many series there are. Raises `LoadError`."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(_GRACE)
        link.connect(str(admin))
        link.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        text = b"".join(iter(lambda: link.recv(1 << 18), b""))
    if not text.startswith(b"HTTP/1.1 200"):
        raise LoadError(f"the metrics cannot be read: {text[:200]!r}")
    return sum(line.startswith(b"devhost_") for line in text.split(b"\n"))


@dataclass(frozen=True)
class Overload:
    """More than the proxy can answer: connections that ask again after a pause, whatever the answer was.

    wrk asks, and counts what is answered with 200 and what with 503; beside it a pacer of `_PROBE_RATE` requests a
    second finds out how long either takes.
    """

    share: float
    connections: int

    def measure(self, occasion: Occasion) -> Measurement:
        """Run both, between two measurements of the peak: of a machine that is shared, the share drifts."""
        peak, contender = _peak(occasion), occasion.contender
        pause = max(1, round(1000 * (self.connections / (self.share * peak) - _ANSWER_SECONDS)))
        words = self._words(f"http://127.0.0.1:{contender.port}/", pause, whole(occasion.seconds), contender.host)
        before = contender.cpu_seconds()
        with ThreadPoolExecutor(1) as threads:
            flood = threads.submit(wrk.run, words, occasion.cores, occasion.seconds)
            probe_words = _paced_words(occasion, _PROBE_RATE, _PROBE_CONNECTIONS, max(occasion.seconds - 0.5, 0.5))
            probe = _generated(occasion, "paced", probe_words)
            sample = flood.result()
        spent = contender.cpu_seconds() - before
        peak = (peak + _peak(occasion)) / 2
        served = sample.requests - sample.refused
        return {
            "requests": served,
            "seconds": sample.seconds,
            "rps": served / sample.seconds,
            "offered": sample.rps,
            "peak": peak,
            "goodput_share": served / sample.seconds / peak,
            "refused": sample.refused,
            "errors": sample.errors - sample.refused + probe["errors"],
            "cpu_us": per_request(spent, sample.requests),
            **{figure: probe[figure] for figure in ("p50", "p99", "p999", "refused_p99")},
        }

    def _words(self, url: str, pause: object, seconds: int, host: str) -> list[str]:
        return wrk.command(url, connections=self.connections, seconds=seconds, mode=f"think {pause}", host=host)

    def described(self, seconds: float) -> str:
        """Both command lines."""
        words = self._words("http://PROXY/", "PAUSE", whole(seconds), "bench.test")
        flood = shlex.join(word.rpartition("/")[2] if word.endswith("wrk.lua") else word for word in words)
        probe = f"python -m loadtests.comparing.paced PORT bench.test {_PROBE_RATE} {_PROBE_CONNECTIONS}"
        return f"{flood} & {probe} {max(seconds - 0.5, 0.5):g} SEED"


@dataclass(frozen=True)
class Excess:
    """More requests than the upstream can take at once, whatever becomes of them: the others are to be refused."""

    share: float
    path: str
    served_at_once: int
    """As many connections as the proxy has to the upstream: what they get in a closed loop is the peak."""
    connections: int

    def measure(self, occasion: Occasion) -> Measurement:
        """Find what the upstream gives, then offer a multiple of it at a fixed rate."""
        closed = Wrk(self.path, self.served_at_once).measure(replace(occasion, seconds=_PEAK_SECONDS))
        words = [*_paced_words(occasion, self.share * closed["rps"], self.connections, occasion.seconds), self.path]
        measured = _generated(occasion, "paced", words)
        return {**measured, "peak": closed["rps"], "goodput_share": measured["rps"] / closed["rps"]}

    def described(self, seconds: float) -> str:
        """The pacer's command line."""
        rate = f"{self.share:g}×PEAK"
        where = f"{self.connections} {seconds:g} SEED {self.path}"
        return f"python -m loadtests.comparing.paced PORT bench.test {rate} {where}"


def known_peak(occasion: Occasion) -> float:
    """The proxy's peak, measured the first time that it is asked for."""
    key = (occasion.contender.name, occasion.contender.variant)
    if key not in occasion.peaks:
        occasion.peaks[key] = _peak(occasion)
    return occasion.peaks[key]


def _peak(occasion: Occasion) -> float:
    url = f"http://127.0.0.1:{occasion.contender.port}/"
    host = occasion.contender.host
    words = wrk.command(url, connections=_PEAK_CONNECTIONS, seconds=_PEAK_SECONDS, mode="get", host=host)
    return wrk.run(words, occasion.cores, _PEAK_SECONDS).rps


def _generated(occasion: Occasion, module: str, words: list[str]) -> Measurement:
    """Run one of our own generators on the cores of the load."""
    command = ["taskset", "-c", occasion.cores, *generator(module, *words)]
    environment = {**os.environ, **generator_environment()}
    before = occasion.contender.cpu_seconds()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=occasion.seconds + _GRACE, env=environment
        )
    except subprocess.CalledProcessError as error:
        raise LoadError(f"{module}: {error.stderr.strip()[-300:]}") from error
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"{module}: no end after {error.timeout:g} s") from error
    spent = occasion.contender.cpu_seconds() - before
    said: Measurement = json.loads(done.stdout)
    answered = said["requests"] + said.get("refused", 0)
    return {**said, "rps": said["requests"] / said["seconds"], "cpu_us": per_request(spent, answered)}


def per_request(seconds: float, requests: float) -> float:
    """CPU time of one request in microseconds. Raises `LoadError` if there was none."""
    if not requests:
        raise LoadError("not a single request was answered")
    return seconds * 1e6 / requests


def whole(seconds: float) -> int:
    """Seconds as wrk takes them."""
    return max(1, round(seconds))


@dataclass(frozen=True)
class Rest:
    """No load at all, after some: what the processes hold and spend while nothing happens."""

    def measure(self, occasion: Occasion) -> Measurement:
        """Use the proxy for a second, let it settle, and look."""
        _peak(occasion)
        time.sleep(1.0)
        before, began = occasion.contender.cpu_seconds(), time.monotonic()
        time.sleep(occasion.seconds)
        spent, lasted = occasion.contender.cpu_seconds() - before, time.monotonic() - began
        root = occasion.contender.process.pid
        workers = [proc.memory(pid).pss for pid in proc.workers(root)]
        return {
            "idle_cpu_share": spent / lasted,
            "worker_pss": sum(workers) / len(workers),
            "processes": len(proc.pids(root)),
        }

    def described(self, seconds: float) -> str:
        """What is done."""
        return f"wrk for {_PEAK_SECONDS} s, a second's pause, then /proc/PID/smaps_rollup and /proc/PID/stat"


@dataclass(frozen=True)
class IdleConnections:
    """Connections that made one request each and are then kept open."""

    count: int

    def measure(self, occasion: Occasion) -> Measurement:
        """Open them one after the other and see by how much the processes grow."""
        contender = occasion.contender
        _peak(occasion)  # what grows once, by the first requests, is no connection's
        time.sleep(1.0)
        before = contender.memory().pss
        with used_connections(contender.port, contender.host, self.count) as links:
            time.sleep(1.0)
            grown = contender.memory().pss - before
            alive = sum(_is_open(link) for link in links)
        return {"connections": alive, "errors": self.count - alive, "bytes_per_connection": grown / max(alive, 1)}

    def described(self, seconds: float) -> str:
        """What is done."""
        return f"{self.count:,} connections, a GET on each, then the growth of Pss in /proc/PID/smaps_rollup"


@contextlib.contextmanager
def used_connections(port: int, host: str, count: int) -> Iterator[list[socket.socket]]:
    """Hold connections on each of which one GET has been answered."""
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        links: list[socket.socket] = []
        for _ in range(count):
            try:
                link = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
                link.sendall(request)
                answered = link.recv(65536).startswith(b"HTTP/1.1 200")
            except OSError as error:
                raise LoadError(f"after {len(links)} connections: {error}") from error
            if not answered:
                raise LoadError(f"after {len(links)} connections: not answered with 200")
            links.append(link)
        yield links


def _is_open(link: socket.socket) -> bool:
    link.setblocking(False)
    try:
        return link.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


@dataclass(frozen=True)
class Spread:
    """Connections that all come at once: how evenly do the workers take them?"""

    count: int

    def measure(self, occasion: Occasion) -> Measurement:
        """Connect all without waiting, and count what each worker holds."""
        contender = occasion.contender
        with contextlib.ExitStack() as stack:
            links = [stack.enter_context(socket.socket()) for _ in range(self.count)]
            for link in links:
                link.setblocking(False)
                link.connect_ex(("127.0.0.1", contender.port))
            workers = proc.workers(contender.process.pid)
            held = _settled(workers, contender.port, self.count)
        return spread_of(held)

    def described(self, seconds: float) -> str:
        """What is done."""
        return f"{self.count} connections at once, then the sockets in /proc/PID/fd of each worker"


def _settled(workers: list[int], port: int, count: int, patience: float = 5.0) -> list[int]:
    until = time.monotonic() + patience
    while True:
        held = [proc.connections(pid, port) for pid in workers]
        if sum(held) >= count or time.monotonic() > until:
            return held
        select.select((), (), (), 0.05)


def spread_of(held: list[int]) -> Measurement:
    """How far the worker that is farthest off is from an even share, 0 to 1 and beyond."""
    if not sum(held):
        raise LoadError("no worker holds a connection")
    even = sum(held) / len(held)
    most = max(abs(number - even) / even for number in held)
    return {"workers": len(held), "connections": sum(held), "unevenness": most}


def with_memory(measured: Measurement, contender: Contender) -> Measurement:
    """Add what the proxy's processes hold after the load."""
    memory = contender.memory()
    return {**measured, "rss": memory.rss, "pss": memory.pss}


def rounded(measured: Mapping[str, float]) -> Measurement:
    """Six significant digits: more were not measured."""
    return {name: float(f"{value:.6g}") for name, value in measured.items()}
