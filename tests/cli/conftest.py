"""What every test of the command line starts from."""

import os
from http.server import ThreadingHTTPServer

import pytest

from tests.cli.fake_admin import Admin, serving


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """Run the test in an empty folder, without variables of the machine's own."""
    monkeypatch.chdir(tmp_path)
    for name in [*os.environ]:
        if name.startswith("DEVHOST") or name == "NO_COLOR":
            monkeypatch.delenv(name)


@pytest.fixture
def admin():
    made = Admin()
    server = ThreadingHTTPServer(("127.0.0.1", 0), made.handler())
    made.address = f"127.0.0.1:{server.server_port}"
    with serving(server):
        yield made
