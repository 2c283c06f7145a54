"""``check`` prints the routes, or everything that is wrong."""

import json

import pytest

from tests.cli.support import run, write


def test_check_prints_the_routes():
    write(
        """
        upstreams: {api: {targets: ["http://a:1", {url: "http://b:2", weight: 3}]}}
        routes:
          web: 3000
          api: {host: [x.y, "*.z"], path: /v1, methods: [GET, POST], headers: {x-a: b}, upstream: api, owner: me}
          ping: {host: "*", path: /ping, respond: {body: pong}}
        """
    )
    lines = run("check").stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[:4]] == ["ROUTE", "web", "api", "ping"]
    assert lines[0].split() == [*("ROUTE", "HOST", "PATH", "METHODS", "HEADERS", "ANSWER", "TARGETS", "OWNER")]
    assert [cell.strip() for cell in lines[2].split("  ") if cell] == [
        *("api", "x.y, *.z", "/v1", "GET,POST", "x-a: b", "upstream api", "http://a:1, http://b:2 x3", "me")
    ]
    assert "answers 200" in lines[3]
    assert lines[-1] == "3 routes, environment dev, from config/devhost.yaml"
    assert run("validate").stdout == run("check").stdout


def test_check_says_where_it_will_listen():
    write("server: {bind: ['127.0.0.1:7', '[::]:8', '0.0.0.0:9', '[::1]:10', 'unix:/run/x.sock']}")
    assert run("check").stdout.splitlines()[-2] == (
        "listens on http://127.0.0.1:7, http://localhost:8 ([::]:8: every address, IPv4 and IPv6), "
        "http://127.0.0.1:9 (0.0.0.0:9: every IPv4 address), http://[::1]:10, unix:/run/x.sock"
    )


def test_check_works_in_an_empty_folder():
    assert "whoami.localhost" in run("check").stdout


def test_check_says_everything_that_is_wrong():
    write("server: {wrokers: 1}\nlog: {level: x}\n")
    result = run("check", code=1)
    assert result.stdout == ""
    first, second, summary = result.stderr.splitlines()
    assert first.startswith("config/devhost.yaml:1:10: server.wrokers: unknown key; allowed: bind, workers")
    assert first.endswith("(did you mean workers?)")
    assert second.startswith("config/devhost.yaml:2:14: log.level: ")
    assert summary == "2 mistakes in the configuration"


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("no-such-user", "there is no user no-such-user on this machine"),
        ("nobody:no-such-group", "there is no group no-such-group on this machine"),
        ("4000000", "the user 4000000 has no entry on this machine; give a group too: 4000000:GROUP"),
    ],
)
def test_check_looks_for_the_user(user, said):
    write(f"server:\n  user: {user!r}\n")
    stderr = run("check", code=1).stderr
    assert stderr == f"config/devhost.yaml:2:9: server.user: {said}\n1 mistake in the configuration\n"
    (error,) = json.loads(run("check", "--json", code=1).stdout)["errors"]
    assert (error["key"], error["message"]) == ("server.user", said)
    assert run("--set", "server.user=nobody", "check").stdout


def test_check_as_json():
    good = json.loads(run("check", "--json").stdout)
    assert good["ok"]
    assert good["routes"][0]["name"] == "whoami"
    assert good["routes"][0]["targets"] == [{"url": "http://127.0.0.1:7779", "weight": 1}]
    write("domain: ${NOPE}")
    bad = json.loads(run("check", "--json", code=1).stdout)
    assert not bad["ok"]
    assert bad["errors"] == [
        {
            "file": "config/devhost.yaml",
            "line": 1,
            "column": 9,
            "key": "domain",
            "message": "the variable NOPE is not set; set it, or give a default as in ${NOPE:-…}",
        }
    ]


def test_check_shows_no_secret():
    write("s3cret\n", "tok")
    write(
        """
        routes:
          a: {to: 3000, headers: {x-plain: "${file:tok}", x-token: s3cret}}
          b: {respond: {body: "${file:tok}", headers: {x-b: "${file:tok}"}}}
          c: {to: "http://${file:tok}:80"}
        """
    )
    for verb in (["check"], ["check", "--json"], ["validate"], ["config", "show"]):
        shown = run(*verb).stdout
        assert "s3cret" not in shown
        assert "********" in shown
