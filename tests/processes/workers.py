"""Workers as the master knows them, without their processes."""

from types import SimpleNamespace
from typing import Any


def worker(slot: int = 0, *, pid: int = 77, born: float = 0.0, retiring: bool = False, aborted: bool = False) -> Any:
    return SimpleNamespace(slot=slot, pid=pid, born=born, retiring=retiring, aborted=aborted)
