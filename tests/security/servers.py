"""The real servers: how each is started, and what it can do. All serve the application in `apps/`.

A server is started the first time a test asks for it and lives as long as the run. What it executed is in a log of its
own, one JSON object a line.
"""

import importlib.metadata
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.gateway import _tie
from tests.support.net import free_port
from tests.support.waiting import wait_until

APPS = Path(__file__).parent / "apps"
_START_SECONDS = 30


@dataclass(frozen=True)
class Place:
    """Where a server listens, and the files it may use."""

    directory: Path
    port: int

    @property
    def socket(self) -> Path:
        """The Unix socket of those that listen on one."""
        return self.directory / "socket"

    @property
    def log(self) -> Path:
        """What the application executed."""
        return self.directory / "executed.log"

    @property
    def certificate(self) -> Path:
        """Certificate and key of those that speak TLS."""
        return self.directory / "certificate.pem"


@dataclass(frozen=True)
class Kind:
    """One row of the table.

    `package` names the distribution it comes from, `program` the command that must be there; `transport` is what it
    listens on; `chunked` says that it reads chunked uploads, `websocket` that the application there has one; `silent`
    are the methods whose bodies the application there never sees. `leaves_posts` says that the body of a POST may stay
    unread, to be taken for the next request: then it is only safe with `trusted` False, which sets
    `reuse_after_body: false`, and without it the attacks that need such a POST are not tried.
    """

    name: str
    command: Callable[[Place], list[str]]
    package: str = ""
    program: str = ""
    transport: str = "tcp"
    chunked: bool = True
    websocket: bool = False
    leaves_posts: bool = False
    trusted: bool = True
    silent: frozenset[str] = frozenset()

    def reads(self, method: str) -> bool:
        """Whether the application there sees the body of such a request."""
        return method not in self.silent

    @property
    def version(self) -> str:
        """The version that is installed."""
        if self.package:
            return importlib.metadata.version(self.package)
        if not self.program:
            return sys.version.split()[0]
        flag = "-v" if self.program in {"nginx", "php"} else "--version"
        said = subprocess.run([self.program, flag], capture_output=True, text=True, check=False)
        return (said.stdout or said.stderr).splitlines()[0]


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def _uvicorn(*options: str) -> Callable[[Place], list[str]]:
    common = ("asgi:app", "--log-level", "error", "--no-server-header")
    return lambda at: _module("uvicorn", *common, "--port", str(at.port), *options)


def _gunicorn(bind: Callable[[Place], str], *options: str) -> Callable[[Place], list[str]]:
    return lambda at: _module("gunicorn", "--log-level", "error", "--no-control-socket", "-b", bind(at), *options)


def _started(name: str) -> Callable[[Place], list[str]]:
    return lambda at: [sys.executable, "start.py", name, str(at.port)]


def _plain(*, tls: bool = False) -> Callable[[Place], list[str]]:
    return lambda at: [sys.executable, "plain.py", str(at.port), *[str(at.certificate)] * tls]


def _tcp(at: Place) -> str:
    return f"127.0.0.1:{at.port}"


def _unix(at: Place) -> str:
    return f"unix:{at.socket}"


def _nginx(at: Place) -> list[str]:
    path = at.directory / "nginx.conf"
    path.write_text((APPS / "nginx.conf").read_text().format(directory=at.directory, port=at.port, log=at.log))
    return ["nginx", "-e", "stderr", "-p", str(at.directory), "-c", str(path)]


_BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "PROPFIND"})
_ALL = _BODILESS | {"POST", "PUT"}

KINDS = (
    Kind("uvicorn-httptools", _uvicorn("--http", "httptools"), "uvicorn", websocket=True),
    Kind("uvicorn-no-websockets", _started("uvicorn_without_websockets"), "uvicorn"),
    Kind(
        "uvicorn-h11",
        lambda at: _uvicorn("--http", "h11", "--ws", "wsproto", "--uds", str(at.socket))(at),
        "uvicorn",
        transport="unix",
        websocket=True,
    ),
    Kind(
        "uvicorn-tls",
        lambda at: _uvicorn("--ssl-certfile", str(at.certificate))(at),
        "uvicorn",
        transport="tls",
        websocket=True,
    ),
    Kind("gunicorn-sync", _gunicorn(_tcp, "-w", "2", "wsgi:app"), "gunicorn"),
    Kind(
        "gunicorn-gthread",
        _gunicorn(_unix, "-k", "gthread", "--threads", "8", "wsgi:app"),
        "gunicorn",
        transport="unix",
    ),
    Kind("gunicorn-asgi", _gunicorn(_tcp, "-k", "asgi", "asgi:app"), "gunicorn", websocket=True),
    Kind(
        "hypercorn",
        lambda at: _module("hypercorn", "--log-level", "error", "-w", "0", "-b", _tcp(at), "asgi:app"),
        "hypercorn",
        websocket=True,
    ),
    Kind("waitress", _started("waitress"), "waitress"),
    # Drains what its application left of a body with a length, but not of one in chunks.
    Kind("cheroot", _started("cheroot"), "cheroot", leaves_posts=True),
    Kind("cheroot-untrusted", _started("cheroot"), "cheroot", leaves_posts=True, trusted=False),
    Kind("werkzeug", _started("werkzeug"), "werkzeug"),
    # Knows nothing of chunks, so that each of them is a body unread.
    Kind("http-server", _plain(), chunked=False, silent=_BODILESS, leaves_posts=True),
    Kind("http-server-tls", _plain(tls=True), transport="tls", chunked=False, silent=_BODILESS, leaves_posts=True),
    Kind("http-server-untrusted", _plain(), chunked=False, silent=_BODILESS, leaves_posts=True, trusted=False),
    Kind("aiohttp", _started("aiohttp"), "aiohttp", websocket=True),
    Kind("tornado", _started("tornado"), "tornado", websocket=True),
    Kind("node", lambda at: ["node", "who.js", str(at.port)], program="node"),
    Kind("php", lambda at: ["php", "-S", _tcp(at), "who.php"], program="php", chunked=False),
    Kind("nginx", _nginx, program="nginx", silent=_ALL),
)
NAMES = tuple(kind.name for kind in KINDS)


@dataclass(frozen=True)
class Executed:
    """A request that a server handed to its application. `status` is 0 where the log does not have it."""

    method: str
    target: str
    victim: str
    cookie: str
    length: int
    ip: str
    status: int = 0


class RealServer:
    """A server of the table: known to the gateway from the beginning, running from the first `start` on."""

    def __init__(self, kind: Kind, directory: Path, certificate: bytes) -> None:
        self.kind = kind
        self.place = Place(directory, free_port())
        directory.mkdir()
        if kind.transport == "tls":
            self.place.certificate.write_bytes(certificate)
        self.place.log.touch()
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<RealServer {self.kind.name} {self.url} pid {self._process and self._process.pid}>"

    @property
    def url(self) -> str:
        """Where the gateway reaches it."""
        if self.kind.transport == "unix":
            return f"unix:{self.place.socket}"
        return f"http{'s' * (self.kind.transport == 'tls')}://localhost:{self.place.port}"

    @property
    def is_installed(self) -> bool:
        """Whether its program is there; in CI it has to be, and `start` says so."""
        return bool(os.environ.get("CI")) or not self.kind.program or shutil.which(self.kind.program) is not None

    def start(self) -> None:
        """Start it unless it runs, and wait until it listens. Skips the test where its program is not there."""
        if self._process:
            return
        program = self.kind.program
        if program and not shutil.which(program):
            sentence = f"{program} is not installed (.ci/run with CI set installs it)"
            pytest.fail(sentence) if os.environ.get("CI") else pytest.skip(sentence)
        environment = {
            "PATH": f"{os.environ['PATH']}:/usr/sbin",
            "HOME": str(self.place.directory),
            "SECURITY_LOG": str(self.place.log),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(APPS),
        }
        with (self.place.directory / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [*_tie(), *self.kind.command(self.place)],
                cwd=APPS,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_until(self._listens, _START_SECONDS, f"{self.kind.name} listening; it said:\n{self.output()[-2000:]}")

    def _listens(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"{self.kind.name} ended at start:\n{self.output()[-3000:]}")
        return _accepts(self.place.socket if self.kind.transport == "unix" else self.place.port)

    def output(self) -> str:
        """What it wrote to its standard output and error."""
        return (self.place.directory / "output").read_text(errors="replace")

    def executed(self, since: int = 0) -> tuple[list[Executed], int]:
        """Return what it executed from that place of its log on, and the place where the log ends now."""
        with self.place.log.open("rb") as log:
            log.seek(since)
            text = log.read()
        whole = text[: text.rfind(b"\n") + 1]
        # As latin-1: nginx logs the bytes of a target as they came.
        requests = [Executed(**json.loads(line.decode("latin-1"))) for line in whole.split(b"\n") if line]
        # What nginx refuses as no request at all stands in its log, without having been executed.
        return [each for each in requests if each.status != 400], since + len(whole)

    def stop(self) -> None:
        """End it and what it has started."""
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _accepts(place: Path | int) -> bool:
    with socket.socket(socket.AF_UNIX if isinstance(place, Path) else socket.AF_INET) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(place) if isinstance(place, Path) else ("127.0.0.1", place))
        except OSError:
            return False
    return True


class Servers:
    """All of them."""

    def __init__(self, certificate: bytes) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="servers-")
        self.by_name = {
            kind.name: RealServer(kind, Path(self._directory.name) / kind.name, certificate) for kind in KINDS
        }

    def close(self) -> None:
        """Stop all that run."""
        for server in self.by_name.values():
            server.stop()
        self._directory.cleanup()
