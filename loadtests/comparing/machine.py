"""The machine a figure was measured on, and which of its cores do what."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cores:
    """CPU numbers, as `taskset -c` takes them."""

    proxy: str
    """Of a proxy with one worker."""
    proxies: str
    """Of a proxy with two workers."""
    load: str
    """Of the upstreams and of what makes the load."""
    pair_shares: bool
    """Whether two workers have to share a core with the load."""

    @classmethod
    def plan(cls, usable: set[int]) -> Cores:
        """Keep proxy and load apart; raises `ValueError` where that is impossible.

        The load always has one core, so that a figure of two cores and one of eight mean the same.
        """
        cores = sorted(usable)
        if len(cores) < 2:
            raise ValueError("one core is not enough: the proxy needs one for itself, the load another")
        if len(cores) == 2:
            first, second = map(str, cores)
            return cls(first, f"{first},{second}", second, pair_shares=True)
        return cls(str(cores[0]), f"{cores[0]},{cores[2]}", str(cores[1]), pair_shares=False)

    @classmethod
    def available(cls) -> Cores:
        """Plan the cores of this process."""
        return cls.plan(os.sched_getaffinity(0))


def description() -> dict[str, object]:
    """What a reader has to know to judge the figures."""
    return {
        "cpu": _cpu_model(Path("/proc/cpuinfo").read_text()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "somaxconn": int(Path("/proc/sys/net/core/somaxconn").read_text()),
        "virtual": "hypervisor" in Path("/proc/cpuinfo").read_text(),
        "python": platform.python_version(),
        "pinning": asdict(Cores.available()),
        "load_before": os.getloadavg()[0],
    }


def _cpu_model(cpuinfo: str) -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def revision(directory: Path) -> str:
    """The commit that is measured, with `+changes` where the tree differs from it; empty without git."""
    try:
        commit = _git(directory, "rev-parse", "--short", "HEAD")
        changed = _git(directory, "status", "--porcelain", "--untracked-files=no", "--", "devhost_server")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+changes" if changed else "")


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
