"""``config show``, ``config diff`` and ``config schema``."""

import json

from tests.cli.support import run, write


def test_config_show():
    write("server: {workers: 3}\nadmin: {token: hunter2}\n")
    text = run("config", "show").stdout
    assert "  workers: 3\n" in text
    assert "hunter2" not in text
    assert run("config", "show", "server.workers", "--origin").stdout == "3  # config/devhost.yaml:1:19\n"
    assert json.loads(run("config", "show", "server.drain", "--json").stdout) == {"delay": "0s", "timeout": "30s"}
    origins = json.loads(run("config", "show", "server", "--json", "--origin").stdout)
    assert origins["server.workers"] == {"value": 3, "origin": "config/devhost.yaml:1:19"}
    assert origins["server.limits.head"] == {"value": "64KiB", "origin": "default"}


def test_config_show_of_an_unknown_key_is_usage():
    assert "(did you mean limits?)" in run("config", "show", "server.limts", code=2).stderr


def test_config_diff():
    write("server: {workers: 3}")
    write("domain: ${A}", "devhost.a.yaml")
    write("domain: b\nserver: {bind: [127.0.0.1:1]}", "devhost.b.yaml")
    lines = run("config", "diff", "a", "b").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["KEY", "A", "B"],
        ["server.bind", "[127.0.0.1:7777]", "[127.0.0.1:1]"],
        ["domain", "${A}", "b"],
    ]
    assert json.loads(run("config", "diff", "a", "b", "--json").stdout)["domain"] == {"a": "${A}", "b": "b"}
    assert run("config", "diff", "a", "a").stdout == "a and a do not differ\n"
    assert "devhost.c.yaml" in run("config", "diff", "a", "c", code=1).stderr
    assert "-c replaces" in run("-c", "x", "config", "diff", "a", "b", code=2).stderr


def test_config_schema_is_json():
    assert json.loads(run("config", "schema").stdout)["title"] == "devhost-server configuration"
    assert run("config", "schema", "--json").stdout == run("config", "schema").stdout
