"""How many cores this process may use, and how many workers that makes."""

import math
import os
from pathlib import Path
from typing import Literal


def available_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the cores that affinity and the cgroup's CPU quota leave to this process, at least one.

    A quota that is not whole is rounded up: 1.5 cores are better used by two workers than by one.
    """
    cores = len(os.sched_getaffinity(0))
    quota = _quota_v2(cgroup / "cpu.max") or _quota_v1(cgroup / "cpu")
    return max(1, min(cores, math.ceil(quota)) if quota is not None else cores)


def worker_count(option: int | Literal["auto"]) -> int:
    """Return how many workers the option `server.workers` asks for."""
    return available_cores() if option == "auto" else option


def _quota_v2(file: Path) -> float | None:
    try:
        quota, period = file.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return None if quota <= 0 else quota / period
    except (OSError, ValueError, ZeroDivisionError):
        return None
