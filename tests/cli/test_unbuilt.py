"""Verbs of later versions are refused."""

import pytest

from tests.cli.support import run


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explain", "GET", "http://x/", "-H", "a: b"], "`explain` is not built in this version"),
        (["explain", "--help"], "`explain` is not built in this version"),
        (["route", "add", "x", "--to", "http://y"], "`route` is not built in this version"),
    ],
)
def test_verbs_that_are_not_built_are_wrong_usage(arguments, says):
    result = run(*arguments, code=2)
    assert says in result.stderr
    assert result.stdout == ""
