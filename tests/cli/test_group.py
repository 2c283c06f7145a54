"""Verbs, help, version and colour."""

import pytest

from devhost_server import __version__
from tests.cli.support import run, write


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["chekc"], "Did you mean 'check'?"),
        (["check", "--nope"], "No such option"),
        (["--set", "x", "check"], "write key.path=value"),
        (["check", "--set", "=x"], "write key.path=value"),
        (["config", "show", "a", "b"], "unexpected extra argument"),
        (["status", "--admin", "nope"], "write http://host:port or unix:/path"),
    ],
)
def test_usage(arguments, says):
    result = run(*arguments, code=2)
    assert says in result.stderr
    assert result.stdout == ""


def test_help_and_version():
    assert run("--version").stdout == f"devhost-server {__version__}\n"
    text = run("-h").stdout
    for verb in ("run", "check", "config", "routes", "status", "reload", "drain"):
        assert f"\n  {verb} " in text
    assert "explain" not in text
    assert "--admin" in run("status", "--help").stdout


def test_no_colour_is_honoured(monkeypatch):
    write("routes: {web: 3000}")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in run("check", color=True).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in run("check", color=True).stdout


def test_colour_is_for_terminals_that_want_it(monkeypatch):
    assert "\x1b[1m" in run("check", color=True).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run("check", color=True).stdout
