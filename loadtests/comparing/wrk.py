"""wrk, driven and read."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("wrk.lua")
_MARK = "comparing "
_TIMEOUT = 20  # seconds; a request that takes longer is an error
_GRACE = 60  # seconds that wrk may take beyond its duration


class LoadError(Exception):
    """The load could not be made, or says nothing."""


@dataclass(frozen=True)
class Sample:
    """What one load saw. Latencies in seconds; `errors` are answers but 2xx and 3xx, and those that never came."""

    requests: int
    seconds: float
    p50: float
    p99: float
    p999: float
    errors: int
    refused: int = 0
    """Of them, answers of 400 and above."""

    @property
    def rps(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def command(url: str, *, connections: int, seconds: float, mode: str, host: str | None = None) -> list[str]:
    """The command line; `mode` is one of wrk.lua's with its argument."""
    host_field = ["-H", f"Host: {host}"] if host else []
    options = ["-t1", f"-c{connections}", f"-d{seconds:g}s", f"--timeout={_TIMEOUT}s", *host_field]
    return ["wrk", *options, "-s", str(SCRIPT), url, "--", *mode.split()]


def run(arguments: list[str], cores: str, seconds: float) -> Sample:
    """Run wrk on its cores. Raises `LoadError` with what it said if it made no measurement."""
    pinned = ["taskset", "-c", cores, *arguments]
    try:
        done = subprocess.run(pinned, capture_output=True, text=True, check=False, timeout=seconds + _GRACE)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LoadError(f"{shlex.join(pinned)}: {error}") from error
    return parse(done.stdout, done.stderr)


def parse(output: str, complaints: str = "") -> Sample:
    """Read the line that wrk.lua writes."""
    line = next((line for line in output.splitlines() if line.startswith(_MARK)), None)
    if line is None:
        raise LoadError(f"wrk measured nothing: {(complaints or output).strip()[-300:] or 'no output'}")
    said: dict[str, Any] = json.loads(line.removeprefix(_MARK))
    errors = sum(said[kind] for kind in ("connect", "read", "write", "status", "timeout"))
    return Sample(said["requests"], said["seconds"], said["p50"], said["p99"], said["p999"], errors, said["status"])
