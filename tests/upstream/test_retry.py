"""The account of retries: a share of the requests, a reserve to begin with, and a ceiling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost_server.upstream.retry import RESERVE, RetryBudget


def withdrawn(budget: RetryBudget, most: int = 1000) -> int:
    """Take retries until there are no more."""
    return next((count for count in range(most) if not budget.withdraw()), most)


@pytest.mark.parametrize("percent", [1, 20, 100])
def test_a_quiet_service_has_a_few_retries(percent: int) -> None:
    assert withdrawn(RetryBudget(percent)) == int(RESERVE)


def test_no_percent_is_no_retry() -> None:
    budget = RetryBudget(0)
    for _ in range(1000):
        budget.deposit()
    assert not budget.withdraw()


@pytest.mark.parametrize(
    ("percent", "requests", "retries"), [(20, 100, 20), (20, 4, 0), (20, 5, 1), (100, 7, 7), (1, 250, 2)]
)
def test_requests_earn_their_share(percent: int, requests: int, retries: int) -> None:
    budget = RetryBudget(percent)
    withdrawn(budget)
    for _ in range(requests):
        budget.deposit()
    assert withdrawn(budget) in (retries, retries - 1)  # sums of binary fractions may fall just short


def test_good_times_do_not_pay_for_a_storm() -> None:
    budget = RetryBudget(20)
    for _ in range(100_000):
        budget.deposit()
    assert withdrawn(budget) <= 101


@given(st.integers(0, 100), st.lists(st.booleans(), max_size=400))
def test_retries_never_exceed_reserve_and_share(percent: int, moves: list[bool]) -> None:
    budget = RetryBudget(percent)
    requests = retries = 0
    for is_request in moves:
        if is_request:
            budget.deposit()
            requests += 1
        elif budget.withdraw():
            retries += 1
        assert retries <= RESERVE + requests * percent / 100 + 1e-6
