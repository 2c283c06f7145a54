"""Who owns which block on the scoreboard: given out by name by the master, kept across reloads.

A name keeps its block for as long as the configuration has it. A block whose name is gone is given out again only once
no worker can write to it any more: all of them serve a later configuration and nothing is in flight on it. A name that
is back at once, because a reload has been taken back, finds its own block as it was: some workers never let go of it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


class BlocksFullError(Exception):
    """The scoreboard was made for fewer names than the configuration has by now."""


@dataclass(slots=True)
class BlockPlan:
    """The blocks of one kind as they would be after a reload; nothing is changed before `Blocks.commit`."""

    owners: dict[str, int]
    taken: list[int] = field(default_factory=list)  # blocks that get a new owner
    fresh: int = 0  # the first block that was never given out


class Blocks:
    """The blocks of one kind."""

    def __init__(self, capacity: int, erase: Callable[[int], None], is_quiet: Callable[[int], bool]) -> None:
        """`erase` zeroes a block in all rows; `is_quiet` says that nothing is in flight on it."""
        self._capacity = capacity
        self._erase = erase
        self._is_quiet = is_quiet
        self._plan = BlockPlan({})
        self._retired: list[int] = []
        self._given_up: dict[str, int] = {}  # by the last commit: what is retired, but still remembered by name

    @property
    def owners(self) -> dict[str, int]:
        """The blocks in use, by name."""
        return self._plan.owners

    def plan(self, names: Iterable[str]) -> BlockPlan:
        """Find a block for each name. Raises `BlocksFullError`."""
        wanted = list(names)
        known = self.owners | self._given_up
        plan = BlockPlan({name: known[name] for name in wanted if name in known}, fresh=self._plan.fresh)
        kept = set(plan.owners.values())
        reusable = [block for block in self._retired if block not in kept and self._is_quiet(block)]
        for name in wanted:
            if name in plan.owners:
                continue
            if reusable:
                plan.taken.append(reusable[-1])
                plan.owners[name] = reusable.pop()
            elif plan.fresh < self._capacity:
                plan.owners[name] = plan.fresh
                plan.fresh += 1
            else:
                raise BlocksFullError(f"the scoreboard has room for {self._capacity}; restart to make more")
        return plan

    def commit(self, plan: BlockPlan) -> None:
        """Assign the blocks. Every worker must serve the configuration that is being replaced, or a later one."""
        for block in plan.taken:
            self._erase(block)
        kept = set(plan.owners.values())
        self._given_up = {name: block for name, block in self.owners.items() if block not in kept}
        self._retired = [*(block for block in self._retired if block not in kept), *self._given_up.values()]
        self._plan = BlockPlan(plan.owners, fresh=plan.fresh)
