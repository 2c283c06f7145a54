"""What the first page promises: clone, install, `DEVHOST_ENV=staging devhost-server`, with nothing else set."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helpers import members
from tests.support import free_port, wait_until

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).with_name("devhost-server")
# A network of its own: the ports of the delivered files are free there, whatever else this machine runs.
OWN_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$0" "$@"')
ASK = """
import http.client, json, sys
answers = []
for method, port, host, path in json.loads(sys.argv[1]):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={"Host": host})
    response = connection.getresponse()
    answers.append([response.status, response.read().decode()])
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of this repository, as committed."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout, so it cannot be cloned")
    if not PROGRAM.exists():
        pytest.skip(f"the program is not installed as {PROGRAM}")
    path = tmp_path_factory.mktemp("fresh") / "devhost-server"
    subprocess.run(("git", "clone", "--quiet", str(ROOT), str(path)), check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def has_own_network() -> bool:
    """Whether this user may make a network (root may, where nothing forbids it)."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None or shutil.which("ip") is None:
        return False
    return subprocess.run((*OWN_NETWORK, "true"), check=False, capture_output=True).returncode == 0


class Fresh:
    """The program in a clone, with an empty HOME and one variable.

    Without a network of its own it takes free ports by `--set`, which is all that then differs from the promise.
    """

    def __init__(self, clone: Path, home: Path, environment: dict[str, str], *, own_network: bool = False) -> None:
        self.clone = clone
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home), **environment}
        self.own_network = own_network
        self.out, self.err = home / "out", home / "err"
        self.public, self.admin, self.echo = 7777, 7778, 7779

    def start(self) -> None:
        """Start it, with the delivered ports if the network is its own."""
        sets = () if self.own_network else self._free_ports()
        self.run(*sets, prefix=OWN_NETWORK if self.own_network else ())

    def _free_ports(self) -> tuple[str, ...]:
        self.public, self.admin, self.echo = free_port(), free_port(), free_port()
        return (
            f"--set=server.bind=0.0.0.0:{self.public}",
            f"--set=admin.bind=127.0.0.1:{self.admin}",
            f"--set=echo.bind=127.0.0.1:{self.echo}",
            f"--set=routes.whoami.to=http://127.0.0.1:{self.echo}",
        )

    def run(self, *options: str, prefix: tuple[str, ...] = ()) -> None:
        """Start it with these options."""
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [*prefix, str(PROGRAM), *options],
                cwd=self.clone,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def enter(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command where the program is."""
        inside = ("nsenter", f"--net=/proc/{self.process.pid}/ns/net") if self.own_network else ()
        return subprocess.run(
            (*inside, *command),
            cwd=self.clone,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def ask(self, *requests: tuple[str, int, str, str]) -> list[Any]:
        """Make requests (method, port, Host, path) on loopback; return status and body of each."""
        done = self.enter(sys.executable, "-c", ASK, json.dumps(requests))
        assert done.returncode == 0, done.stderr
        answers: list[Any] = json.loads(done.stdout)
        return answers

    def is_ready(self) -> bool:
        """Whether it says so; fails if it has ended."""
        assert self.process.poll() is None, self.err.read_text()
        return "ready:" in self.err.read_text()

    def end(self) -> None:
        """Stop it without waiting for its drain; nothing of it is left."""
        for pid in members(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(20)


@pytest.fixture
def staging(clone: Path, tmp_path: Path, has_own_network: bool) -> Iterator[Fresh]:
    fresh = Fresh(clone, tmp_path, {"DEVHOST_ENV": "staging"}, own_network=has_own_network)
    fresh.start()
    try:
        yield fresh
    finally:
        fresh.end()


def test_staging_starts_and_serves_with_nothing_set(staging: Fresh) -> None:
    wait_until(staging.is_ready, 30, "being ready")
    ping, whoami, ready, routes, reload = staging.ask(
        ("GET", staging.public, "anything.example", "/ping"),
        ("GET", staging.public, f"whoami.staging.localhost:{staging.public}", "/"),
        ("GET", staging.admin, "127.0.0.1", "/readyz"),
        ("GET", staging.admin, "127.0.0.1", "/api/routes"),
        ("POST", staging.admin, "127.0.0.1", "/api/reload"),
    )
    assert ping == [200, "pong"]
    assert whoami[0] == 200
    assert ready[0] == 200
    assert routes[0] == 200
    assert reload[0] == 200, "on loopback the admin listener wants no token"


def test_its_admin_listener_is_on_loopback_alone(staging: Fresh) -> None:
    wait_until(staging.is_ready, 30, "being ready")
    listening = staging.enter("cat", "/proc/net/tcp", "/proc/net/tcp6").stdout
    held = [line.split()[1] for line in listening.splitlines() if line.split()[3:4] == ["0A"]]
    assert [address for address in held if address.endswith(f":{staging.admin:04X}")] == [
        f"0100007F:{staging.admin:04X}"
    ]
    assert f"00000000:{staging.public:04X}" in held


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"DEVHOST_ENV": "staging", "DEVHOST_ADMIN_BIND": "0.0.0.0:7778"}, ("`token` is required",)),
        ({"DEVHOST_ENV": "prod"}, ("set it to the domain", "set DEVHOST_ADMIN_TOKEN_FILE")),
    ],
)
def test_what_is_missing_is_said(
    clone: Path, tmp_path: Path, environment: dict[str, str], said: tuple[str, ...]
) -> None:
    fresh = Fresh(clone, tmp_path, environment)
    fresh.run()
    try:
        assert fresh.process.wait(30) == 1
    finally:
        fresh.end()
    err = fresh.err.read_text()
    assert "Traceback" not in err
    assert all(text in err for text in said), err
