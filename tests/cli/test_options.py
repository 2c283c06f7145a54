"""Global options stand before or after the verb."""

from pathlib import Path

from tests.cli.support import run, write


def test_global_options_stand_before_or_after_the_verb():
    write("domain: a")
    write("domain: b", "devhost.qa.yaml")
    Path("c.yaml").write_text("domain: c")
    Path("d.yaml").write_text("domain: d")

    def domain(*arguments):
        return run(*arguments).stdout.strip()

    assert domain("--env", "qa", "config", "show", "domain") == "b"
    assert domain("config", "show", "--env", "qa", "domain") == "b"
    assert domain("config", "--env", "qa", "show", "domain") == "b"
    assert domain("--env", "dev", "config", "show", "domain", "--env", "qa") == "b"
    assert domain("-c", "d.yaml", "config", "show", "domain", "-c", "c.yaml") == "c"
    assert domain("--set", "domain=x", "config", "show", "domain") == "x"
    assert domain("--set", "domain=x", "config", "show", "domain", "--set", "domain=y") == "y"
    assert domain("--config-dir", "config", "config", "show", "domain") == "a"


def test_variables_choose_too(monkeypatch):
    write("domain: a")
    write("domain: b", "devhost.qa.yaml")
    monkeypatch.setenv("DEVHOST_ENV", "qa")
    assert run("config", "show", "domain").stdout == "b\n"
    monkeypatch.setenv("DEVHOST__DOMAIN", "v")
    assert run("config", "show", "domain").stdout == "v\n"
