"""The page's blocks as configurations of a running gateway, and the applications to put behind it."""

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import Gateway, RawClient, wait_until
from tests.support.gateway import _tie, merged
from tests.support.net import accepts
from tests.support.websocket import Frame, handshake, read_frame

APPS = Path(__file__).parent / "apps"
PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
MASK = b"mask"

# What the test suite makes short to be quick is here as it is for a user.
_AS_SHIPPED: Mapping[str, Any] = {
    "server": {"timeouts": {"head": "10s", "body_idle": "30s", "keepalive": "75s", "write_idle": "1m"}},
    "defaults": {
        "timeouts": {"connect": "3s", "response": "30s", "read_idle": "1m", "tunnel_idle": "1h"},
        "pool": {"wait": "2s"},
    },
}


def recipe(port: int, *names: str, **changes: Any) -> Gateway:
    """Return a gateway with the page's routes of these names, each to `port`; `changes` go over them.

    The sections beside the routes are those of the first one's block.
    """
    whole = next(block for block in map(yaml.safe_load, BLOCKS) if names[0] in block["routes"])
    routes = {name: route for block in map(yaml.safe_load, BLOCKS) for name, route in block["routes"].items()}
    chosen = {name: {**(routes[name] if isinstance(routes[name], dict) else {}), "to": port} for name in names}
    return Gateway(merged(merged({**_AS_SHIPPED}, {**whole, "routes": chosen}), changes))


def virtual_environment(name: str, packages: str) -> Path:
    """The `bin` of the environment that RECIPES_`name` names; skips the test where there is none."""
    folder = os.environ.get(f"RECIPES_{name}")
    if not folder:
        pytest.skip(f"set RECIPES_{name} to a virtual environment made with `pip install {packages}`")
    return Path(folder) / "bin"


@contextlib.contextmanager
def running(
    port: int, *command: str | Path, environment: Mapping[str, str] | None = None, cwd: Path = APPS, host: str = ""
) -> Iterator[Path]:
    """Run a server until the block ends; gives the file that has what it printed. It listens when the block begins."""
    with tempfile.TemporaryDirectory(prefix="recipe-") as home:
        output = Path(home) / "output"
        given = {"PATH": os.environ["PATH"], "HOME": home, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}
        with output.open("wb") as sink:
            process = subprocess.Popen(
                [*_tie(), *map(str, command)],
                cwd=cwd,
                env=given,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

        def listens() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended at start:\n{output.read_text(errors='replace')[-3000:]}")
            return accepts(port, host or "127.0.0.1") or (not host and accepts(port, "::1"))

        try:
            wait_until(listens, 90, f"{command[0]} listening on {port}")
            yield output
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def python(*arguments: str) -> list[str]:
    """A command of the environment that the tests run in."""
    return [sys.executable, *arguments]


@dataclass(frozen=True)
class Answer:
    """What the application answered."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


class Visitor:
    """A client of one host behind the gateway, which keeps no connection, follows nothing and keeps cookies."""

    def __init__(self, gateway: Gateway, name: str, fields: Mapping[str, str] | None = None) -> None:
        self.port = gateway.port
        self.host = name if name.endswith(".com") else f"{name}:{gateway.port}"
        self.fields = dict(fields or {})
        self.cookies: dict[str, str] = {}

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | str | Iterator[bytes] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request, the pieces of an iterator as chunks, and read the whole answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            sent = {"Host": self.host, **self.fields, **(fields or {})}
            if self.cookies:
                sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            connection.request(method, target, body, sent)
            got = connection.getresponse()
            answer = Answer(got.status, got.headers, got.read())
        for line in answer.headers.get_all("Set-Cookie", ()):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    def get(self, target: str, fields: Mapping[str, str] | None = None) -> Answer:
        """Ask with GET."""
        return self.ask("GET", target, None, fields)

    def websocket(self, target: str, fields: Mapping[str, str] | None = None) -> RawClient:
        """Open a WebSocket as a page of this host does."""
        client = RawClient(self.port, timeout=60)
        origin = {"Origin": f"http://{self.host}", **(fields or {})}
        if self.cookies:
            origin["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        try:
            client.send(handshake(target, tuple(origin.items()), host=self.host))
            answer = client.start_response()
            assert answer.status == 101, answer.finish()
        except BaseException:
            client.close()
            raise
        return client


def say(client: RawClient, opcode: int, payload: bytes) -> None:
    """Send a message in one frame."""
    client.send(Frame(opcode, payload).encode(MASK))


def hear(client: RawClient, what: bytes) -> bytes:
    """Read frames until one has `what` in it."""
    while what not in (frame := read_frame(client, 60)).payload:
        pass
    return frame.payload
