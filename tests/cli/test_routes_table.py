"""The table of routes shows what is unusual, and fits into the terminal."""

import json

import pytest

from tests.cli.support import run, write

WIDE = """
upstreams: {api: {targets: ["http://a:1", "http://b:2"], timeouts: {read_idle: 5m}}}
routes:
  api:
    host: [one.example, two.example]
    path: /v1
    upstream: api
    strip_prefix: true
    methods: [GET, POST]
    headers: {x-a: b}
    timeouts: {response: 2m}
    owner: me
  ping: {host: "*", respond: {}}
"""


def test_check_shows_prefix_and_time_outs_where_there_are_any():
    write(WIDE)
    head, api, _ = run("check").stdout.splitlines()[:3]
    assert head.split() == ["ROUTE", "HOST", "PATH", "METHODS", "HEADERS", "ANSWER", "TARGETS", "TIME-OUTS", "OWNER"]
    assert "/v1 (cut off)" in api
    assert "response 2m, read_idle 5m" in api
    route = json.loads(run("check", "--json").stdout)["routes"][0]
    assert route["strip_prefix"] is True
    assert (route["timeouts"]["response"], route["timeouts"]["read_idle"]) == (120, 300)
    write("routes: {web: 3000}")
    assert "TIME-OUTS" not in run("check").stdout


@pytest.mark.parametrize("width", [200, 120, 100, 80])
def test_a_table_keeps_to_the_terminal(monkeypatch, width):
    monkeypatch.setattr("devhost_server.cli.check.terminal_width", lambda: width)
    write(WIDE)
    lines = run("check").stdout.split("\n\n")[0].splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for part in ("one.example", "two.example", "/v1 (cut off)", "GET,POST", "x-a: b", "upstream api", "http://a:1",
                 "http://b:2", "response 2m", "read_idle 5m", "me"):  # fmt: skip
        assert part in text
    assert (len(lines) == 3) == (width == 200)
