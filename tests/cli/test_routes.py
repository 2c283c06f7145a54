"""``routes`` prints the routes of the running gateway."""

import json

from tests.cli.fake_admin import ROUTES
from tests.cli.support import run


def test_routes(admin):
    result = run("routes", "--admin", f"http://{admin.address}")
    lines = result.stdout.splitlines()
    assert "http://a:1 (up), http://b:1 x2 (down), http://c:1" in lines[1]
    assert r"me\x1b[2J" in lines[1]
    assert "answers 404" in lines[2]
    assert lines[-1] == "2 routes, generation 3"
    assert json.loads(run("routes", "--json", "--admin", admin.address).stdout) == ROUTES
