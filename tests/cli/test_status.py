"""``status`` prints the state of the running gateway."""

import json

from tests.cli.fake_admin import STATUS
from tests.cli.support import run


def test_status(admin):
    text = run("status", "--admin", admin.address).stdout
    assert text.splitlines()[0] == ("devhost-server 1.2.3: running, environment dev, generation 3, up 1d 2h, pid 77")
    assert [line.split() for line in text.splitlines() if line.startswith("0 ")] == [
        ["0", "78", "ready", "3", "14", "2", "1", "0"]
    ]
    assert "WORKER" in text
    assert [line.partition("4  ")[2].strip() for line in text.splitlines() if line.startswith("api ")] == [
        "up",
        "down since 2026-11-21T06:00:00Z",
        "not tried yet",
    ]
    assert "last reload: failed at 2026-11-21T06:00:00Z, generation 3\n  x.yaml:1:1: no\n" in text
    assert json.loads(run("status", "--json", "--admin", admin.address).stdout) == STATUS
