"""How many retries an upstream may be sent: a share of its requests, so that a failing one is not buried in retries.

Sans I/O and without a clock. Every request puts `percent / 100` of a retry on the account and every retry takes one
off. The account begins with a few, so that a quiet staging service gets its retries too, and does not grow for ever.
"""

from typing import Final

# Finagle's retry budget begins with a reserve of 10 a second for the same reason.
RESERVE: Final = 10.0
_CEILING: Final = 100.0


class RetryBudget:
    """The account of one upstream in one worker."""

    __slots__ = ("_balance", "_share")

    def __init__(self, percent: int) -> None:
        self._share = percent / 100
        self._balance = RESERVE if percent else 0.0

    def deposit(self) -> None:
        """Note a request."""
        if self._balance < _CEILING:
            self._balance += self._share

    @property
    def allows(self) -> bool:
        """Whether there is a retry left."""
        return self._balance >= 1

    def withdraw(self) -> bool:
        """Ask for a retry; False if there have been too many."""
        if not self.allows:
            return False
        self._balance -= 1
        return True
