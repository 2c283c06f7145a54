"""What /proc knows about a process and all its descendants: CPU time, memory, connections.

CPU time survives a noisy machine better than throughput does: a proxy that waits for its turn is not charged for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_ESTABLISHED = "01"


@dataclass(frozen=True)
class Stat:
    """The fields of /proc/PID/stat that are of use here."""

    pid: int
    name: str
    parent: int
    ticks: int
    """User and system time in clock ticks, with that of children that have ended and been waited for."""

    @classmethod
    def parse(cls, text: str) -> Stat:
        """Read a line of /proc/PID/stat; the name, in parentheses, may itself hold parentheses and spaces."""
        pid, _, rest = text.partition(" (")
        name, _, tail = rest.rpartition(") ")
        fields = tail.split()
        # proc(5): state is field 3, ppid 4, utime 14, stime 15, cutime 16, cstime 17
        return cls(int(pid), name, int(fields[1]), sum(map(int, fields[11:15])))


@dataclass(frozen=True)
class Memory:
    """Memory of processes in bytes."""

    rss: int
    """Resident set: pages shared between processes count once for each."""
    pss: int
    """Proportional set: a page shared by n processes counts 1/n for each, so a tree's sum is what it costs."""


def all_stats(proc: Path = PROC) -> dict[int, Stat]:
    """Every process there is."""
    found: dict[int, Stat] = {}
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                stat = Stat.parse((entry / "stat").read_text())
            except OSError:  # it ended between the listing and the reading
                continue
            found[stat.pid] = stat
    return found


def tree(root: int, stats: dict[int, Stat]) -> Iterator[Stat]:
    """Give a process and its living descendants."""
    children: dict[int, list[int]] = {}
    for stat in stats.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        if pid in stats:
            yield stats[pid]
            waiting += children.get(pid, ())


def cpu_seconds(root: int, proc: Path = PROC) -> float:
    """User and system time of a whole process tree, its dead included; exact to a clock tick (10 ms) per process."""
    return sum(stat.ticks for stat in tree(root, all_stats(proc))) / TICKS_PER_SECOND


def pids(root: int) -> list[int]:
    """A process and its living descendants, oldest first as far as pids tell."""
    return sorted(stat.pid for stat in tree(root, all_stats()))


def memory(pid: int, proc: Path = PROC) -> Memory:
    """Memory of one process; nothing for one that has ended or may not be looked at."""
    try:
        text = (proc / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return Memory(0, 0)
    return Memory(_kilobytes(text, "Rss"), _kilobytes(text, "Pss"))


def _kilobytes(text: str, key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def tree_memory(root: int) -> Memory:
    """Memory of a whole process tree."""
    parts = [memory(pid) for pid in pids(root)]
    return Memory(sum(part.rss for part in parts), sum(part.pss for part in parts))


def title(pid: int) -> str:
    """The command line as ps shows it, which is where servers say what a process of theirs is."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def workers(root: int) -> list[int]:
    """The processes of a tree that call themselves workers; the root alone where none does."""
    found = [pid for pid in pids(root) if "worker" in title(pid) and pid != root]
    return found or [root]


def established(port: int) -> set[int]:
    """Inodes of the sockets whose own port is `port` and which have a peer (IPv4)."""
    found = set()
    for line in (PROC / "net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == _ESTABLISHED and int(fields[1].rpartition(":")[2], 16) == port:
            found.add(int(fields[9]))
    return found


def connections(pid: int, port: int) -> int:
    """How many accepted connections of a port a process holds."""
    sockets = established(port)
    held = 0
    for descriptor in (PROC / str(pid) / "fd").iterdir():
        try:
            found = _SOCKET.fullmatch(str(descriptor.readlink()))
        except OSError:  # closed meanwhile
            continue
        held += found is not None and int(found[1]) in sockets
    return held
