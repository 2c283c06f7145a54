"""An upstream as a worker serves it: its targets, how they share the requests, and the account of retries."""

from collections.abc import Container

from devhost_server.shared.board import UpstreamCell
from devhost_server.timing.deadlines import Wheel
from devhost_server.upstream.backoff import Backoff
from devhost_server.upstream.balance import RoundRobin
from devhost_server.upstream.caller import Caller, Owner
from devhost_server.upstream.options import UpstreamOptions
from devhost_server.upstream.retry import RetryBudget
from devhost_server.upstream.target import Target


class Upstream:
    """The live state of one upstream in one worker. It outlives reloads that do not change its options."""

    def __init__(
        self,
        name: str,
        options: UpstreamOptions,
        wheel: Wheel,
        row: memoryview,
        cell: int,
        target_cells: list[int],
        start: int,
    ) -> None:
        self.name = name
        self.options = options
        self.row = row
        self.cell = cell  # of its block on the scoreboard
        self.head_cell = cell + UpstreamCell.HEAD_DURATION
        self.pass_host = options.pass_host
        self.buffer_body = options.buffer_body or 0
        self.attempts = options.retries.attempts
        self.budget = RetryBudget(options.retries.budget_percent)
        self._wheel = wheel
        self.backoff: Backoff[Target] = Backoff()
        self.targets = tuple(
            Target(name, target, options.pool, options.timeouts, wheel, row, target_cell, self.backoff)
            for target, target_cell in zip(options.targets, target_cells, strict=True)
        )
        self.sole = self.targets[0] if len(self.targets) == 1 else None
        self._balancer = RoundRobin(self.targets, start)

    def __repr__(self) -> str:
        return f"<Upstream {self.name} targets={len(self.targets)}>"

    def owned_by(self, owner: Owner) -> Target | None:
        """Return the target to which there is a connection that a client owns, or None."""
        return next((target for target in self.targets if target.pool in owner), None)

    def pick(self, x: Caller, tried: Container[Target] = ()) -> Target | None:
        """Return the target for the next attempt of a request, None if all have been tried.

        One that could not be connected to is left alone while there is another.
        """
        if self.backoff:
            return self._pick_reachable(tried)
        return self._balancer.pick(tried)

    def _pick_reachable(self, tried: Container[Target]) -> Target | None:
        for target in self.backoff.due(self._wheel.now):
            target.pool.probe()
        barred = [target for target in self.targets if target in tried or target in self.backoff]
        return self._balancer.pick(barred) or self.backoff.longest_ago(tried)

    def pick_again(self, x: Caller, tried: Container[Target], *, free: bool) -> Target | None:
        """Return the target for a retry, None if there is none or the budget is spent.

        A retry of what was never sent is `free`: it adds nothing to what the targets have to do.
        """
        if not free and not self.budget.allows:
            return None
        target = self.pick(x, tried)
        if target is not None and not free:
            self.budget.withdraw()
        return target

    def retire(self) -> None:
        """Close all connections, those in use as they become idle."""
        for target in self.targets:
            target.pool.retire()

    @property
    def quiet(self) -> bool:
        """Whether nothing is in flight on any target."""
        return not any(target.pool.active for target in self.targets)

    def each_second(self) -> None:
        """Close idle connections beyond what is to be kept, and show what there is."""
        for target in self.targets:
            target.pool.trim()
            target.write_gauges()
