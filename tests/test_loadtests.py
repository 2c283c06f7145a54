"""The load test can fail: it is run against upstreams that are right, wrong, and not there."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.test_echo import Echo, running

LOCUSTFILE = Path(__file__).parent.parent / "loadtests" / "locustfile.py"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("locust") is None, reason="locust is not installed (dependency group `load`)"
)


class Liar(BaseHTTPRequestHandler):
    """Answers everything at once with a well-formed, empty success."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET  # noqa: N815  the name http.server looks for

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def liar() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Liar) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    with running() as server:
        yield server


def locust(port: int, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        *(sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"),
        *("--users", "10", "--spawn-rate", "10", "--run-time", "2s", "--host", f"http://127.0.0.1:{port}", *options),
    ]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=100
    )


def until_it_says(port: int, names: tuple[str, ...], code: int) -> None:
    """Run for longer and longer: what comes up in a run is chance, and a busy machine gets round to less."""
    for seconds in (2, 8, 24):
        done = locust(port, "--run-time", f"{seconds}s")
        if "no request was made" in done.stdout and seconds < 24:
            continue
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stdout
        missing = [name for name in names if name not in done.stdout]
        if not missing:
            return
    pytest.fail(f"nothing about {missing} in {seconds} s")


def test_right_answers_to_every_scenario_pass(echo: Echo) -> None:
    names = ("/steady", "/bytes", "/upload", "/delay", "/sse", "/ws connect", "/ws message", "/ws close")
    until_it_says(echo.port, tuple(f" {name} " for name in names), 0)


def test_wrong_answers_to_every_scenario_fail(liar: int) -> None:
    names = ("GET /steady: ", "GET /bytes: ", "POST /upload: ", "GET /delay: ", "GET /sse: ", "WS /ws connect: ")
    until_it_says(liar, names, 1)


def test_a_gateway_that_is_not_there_fails() -> None:
    assert locust(1, "--tags", "steady", "websocket").returncode == 1


def test_a_run_without_a_request_fails(echo: Echo) -> None:
    done = locust(echo.port, "--tags", "nothing")
    assert done.returncode == 1
    assert "no request was made" in done.stdout
