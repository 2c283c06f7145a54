"""``reload`` says whether the running gateway has reloaded, and why not."""

import json

from tests.cli.support import run, write


def test_reload(admin):
    assert run("reload", "--admin", admin.address).stdout == "reloaded: every worker serves generation 4\n"
    assert json.loads(run("reload", "--json", "--admin", admin.address).stdout)["generation"] == 4


def test_a_reload_that_is_refused_says_why(admin):
    admin.answers["POST /api/reload"] = (422, {"title": "no", "errors": ["config/devhost.yaml:1:1: x: wrong"]})
    result = run("reload", "--admin", admin.address, code=1)
    assert result.stderr.splitlines() == [
        "config/devhost.yaml:1:1: x: wrong",
        "not reloaded: the configuration from before keeps serving",
    ]
    assert json.loads(run("reload", "--json", "--admin", admin.address, code=1).stdout)["errors"]


def test_a_reload_is_asked_for_even_if_the_files_are_wrong(admin):
    write(f"admin: {{bind: {admin.address}}}\nserver: {{nope: 1}}")
    assert "generation 4" in run("reload").stdout
