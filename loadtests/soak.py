"""Mixed traffic for long: does the gateway keep its size?

Starts a gateway with the `dev` environment on free ports and the load test of `locustfile.py` on it, and looks at every
process of the gateway every few seconds. Ends non-zero if an answer was wrong, if the memory of a process went on
growing after the first tenth of the time, or if descriptors did.

    python loadtests/soak.py --minutes 10
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from loadtests.comparing import proc

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
SETTLING = 0.1
"""The part of the time in which a process may still grow, the first minute of ten: what it needs once is allocated
then."""
ALLOWED_GROWTH = 2 * MIB
"""Of one process, between the medians of the first tenth after settling and the last tenth. Allocators round up."""
ALLOWED_DESCRIPTORS = 1
"""libuv keeps one in reserve, from the first stream that it makes."""
READY_SECONDS = 20.0
IDLE_SECONDS = 45.0
"""`pool.idle_expiry` is 30 s; only then does a worker have as many descriptors as before."""


class SoakError(Exception):
    """The soak could not be done."""


@dataclass(frozen=True)
class Sample:
    """One look at one process; bytes."""

    seconds: float
    name: str
    rss: int
    pss: int
    descriptors: int


@dataclass(frozen=True)
class Growth:
    """How one process fared: medians after settling and at the end, and descriptors when all was over."""

    name: str
    pss_then: float
    pss_last: float
    rss_then: float
    rss_last: float
    descriptors_before: int
    descriptors_peak: int
    descriptors_after: int

    @property
    def complaints(self) -> list[str]:
        """What is wrong with it."""
        found = []
        if self.pss_last - self.pss_then > ALLOWED_GROWTH:
            found.append(f"{self.name} grew by {(self.pss_last - self.pss_then) / MIB:.1f} MiB")
        if self.descriptors_after > self.descriptors_before + ALLOWED_DESCRIPTORS:
            found.append(f"{self.name} kept {self.descriptors_after - self.descriptors_before} descriptors")
        return found


def growth(before: list[Sample], during: list[Sample], after: list[Sample]) -> list[Growth]:
    """Compare each process with itself. Raises `SoakError` if one was replaced, or there are too few samples."""
    seconds = max((sample.seconds for sample in during), default=0.0)
    grown = []
    for name in [sample.name for sample in before]:
        mine = [sample for sample in during if sample.name == name]
        early = [each for each in mine if SETTLING * seconds <= each.seconds <= 2 * SETTLING * seconds]
        late = [each for each in mine if each.seconds >= (1 - SETTLING) * seconds]
        last = [each for each in after if each.name == name]
        if not early or not late or not last:
            raise SoakError(f"{name} did not live from the beginning to the end, or the soak was too short to tell")
        grown.append(
            Growth(
                name,
                statistics.median(each.pss for each in early),
                statistics.median(each.pss for each in late),
                statistics.median(each.rss for each in early),
                statistics.median(each.rss for each in late),
                next(each.descriptors for each in before if each.name == name),
                max(each.descriptors for each in mine),
                last[0].descriptors,
            )
        )
    return grown


def table(grown: list[Growth]) -> str:
    """The outcome as a Markdown table, MiB."""
    rows = [
        "| process | PSS after the first tenth | PSS at the end | RSS | descriptors before, at most, after |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    rows += [
        f"| {g.name} | {g.pss_then / MIB:.1f} | {g.pss_last / MIB:.1f} | {g.rss_then / MIB:.1f} → "
        f"{g.rss_last / MIB:.1f} | {g.descriptors_before}, {g.descriptors_peak}, {g.descriptors_after} |"
        for g in grown
    ]
    return "\n".join(rows)


def look(root: int, began: float) -> list[Sample]:
    """Sample every process of the gateway; those that end meanwhile are left out."""
    samples = []
    for pid in proc.pids(root):
        words = proc.title(pid).removeprefix("devhost-server: ").split()
        with suppress(OSError):
            descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            memory = proc.memory(pid)
            name = f"{words[0]} {words[1]}" if words[:1] == ["worker"] else words[0] if words else "?"
            samples.append(Sample(time.monotonic() - began, f"{name} ({pid})", memory.rss, memory.pss, descriptors))
    return samples


@contextmanager
def running_gateway(directory: Path, workers: int) -> Iterator[tuple[int, int]]:
    """Run the `dev` environment on free ports; gives the master's pid and the public port."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        public, admin, echo = (each.getsockname()[1] for each in held)
    settings = {
        "server.bind": f"127.0.0.1:{public}",
        "server.workers": workers,
        "admin.bind": f"127.0.0.1:{admin}",
        "echo.bind": f"127.0.0.1:{echo}",
        "routes.whoami.to": echo,
        "log.access": directory / "access.log",
    }
    options = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "devhost_server", "--env", "dev", "--config-dir", ROOT / "config", *options, "run"]
    with (directory / "gateway.log").open("wb") as log:
        gateway = subprocess.Popen(command, cwd=ROOT, stderr=log)
    try:
        _wait_ready(admin, gateway)
        yield gateway.pid, public
    finally:
        gateway.send_signal(signal.SIGTERM)
        gateway.wait(60)
    if gateway.returncode:
        words = (directory / "gateway.log").read_text()[-500:]
        raise SoakError(f"the gateway ended with {gateway.returncode}: {words}")


def _wait_ready(admin: int, gateway: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + READY_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=1):
                return
        except OSError as error:
            if gateway.poll() is not None or time.monotonic() > until:
                raise SoakError(f"the gateway was not ready within {READY_SECONDS:g} s: {error}") from error
            time.sleep(0.1)


def soak(seconds: float, users: int, workers: int, every: float) -> tuple[list[Growth], list[Sample], int]:
    """Run it all. Gives what became of each process, all samples, and locust's exit code."""
    with (
        tempfile.TemporaryDirectory() as name,
        running_gateway(Path(name), workers) as (master, port),
    ):
        began = time.monotonic()
        before = look(master, began)
        command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py"), "--headless"]
        command += ["--only-summary", "--users", str(users), "--spawn-rate", str(users)]
        command += ["--run-time", f"{max(round(seconds), 1)}s", "--host", f"http://127.0.0.1:{port}"]
        load = subprocess.Popen(command, cwd=ROOT)
        during = []
        while load.poll() is None:
            during += look(master, began)
            with suppress(subprocess.TimeoutExpired):
                load.wait(every)
        after = _after(master, began, sum(each.descriptors for each in before))
        return growth(before, during, after), before + during + after, load.returncode


def _after(master: int, began: float, descriptors: int) -> list[Sample]:
    """Look once more, when the idle connections to targets have been given up, or that should have happened."""
    until = time.monotonic() + IDLE_SECONDS
    while True:
        samples = look(master, began)
        if sum(each.descriptors for each in samples) <= descriptors or time.monotonic() > until:
            return samples
        time.sleep(1.0)


def main() -> None:
    """Run a soak and judge it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--users", type=int, default=30, help="each does at most 20 tasks a second (default: 30)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two looks (default: 5)")
    parser.add_argument("--json", type=Path, help="write every sample to this file")
    options = parser.parse_args()
    os.environ.pop("DEVHOST_ENV", None)
    try:
        grown, samples, code = soak(options.minutes * 60, options.users, options.workers, options.every)
    except SoakError as error:
        sys.exit(f"soak: {error}")
    if options.json:
        options.json.write_text(json.dumps([asdict(sample) for sample in samples]))
    print(table(grown))
    complaints = [complaint for each in grown for complaint in each.complaints]
    complaints += ["locust found wrong answers, see above"] if code else []
    sys.exit("soak: " + "; ".join(complaints) if complaints else 0)


if __name__ == "__main__":
    main()
