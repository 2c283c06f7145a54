"""How many cores there are to use, by affinity and by cgroup."""

import os
from pathlib import Path

import pytest

from devhost_server.processes.cores import available_cores, worker_count

HERE = len(os.sched_getaffinity(0))


def v2(folder: Path, text: str) -> Path:
    (folder / "cpu.max").write_text(text)
    return folder


def v1(folder: Path, quota: str, period: str) -> Path:
    (folder / "cpu").mkdir()
    (folder / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (folder / "cpu" / "cpu.cfs_period_us").write_text(period)
    return folder


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("max 100000\n", 8),
        ("100000 100000\n", 1),
        ("150000 100000\n", 2),
        ("400000 100000\n", 4),
        ("1600000 100000\n", 8),
        ("1000 100000\n", 1),
        ("100000 0\n", 8),
        ("", 8),
        ("garbage", 8),
        ("a b", 8),
        ("1 2 3", 8),
    ],
)
def test_quota_of_cgroup_2(tmp_path: Path, text: str, cores: int) -> None:
    assert available_cores(v2(tmp_path, text)) == cores


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("quota", "period", "cores"),
    [("-1", "100000", 8), ("250000", "100000", 3), ("100000", "0", 8), ("x", "100000", 8), ("100000", "", 8)],
)
def test_quota_of_cgroup_1(tmp_path: Path, quota: str, period: str, cores: int) -> None:
    assert available_cores(v1(tmp_path, quota, period)) == cores


@pytest.mark.usefixtures("eight_cores")
def test_cgroup_2_counts_where_both_are(tmp_path: Path) -> None:
    assert available_cores(v2(v1(tmp_path, "100000", "100000"), "300000 100000")) == 3


def test_without_any_cgroup_affinity_decides(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == HERE
    assert 1 <= available_cores() <= HERE


def test_workers_are_as_many_as_asked_for_or_as_there_are_cores() -> None:
    assert worker_count(3) == 3
    assert worker_count("auto") == available_cores()
