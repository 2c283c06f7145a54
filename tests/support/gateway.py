"""The program under test as an operator runs it: its own process, a configuration file, signals, log files."""

import contextlib
import functools
import http.client
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.certificates import authority
from tests.support.net import accepts, free_port
from tests.support.waiting import patient, wait_until

Config = Mapping[str, Any]

# In front of the command, so that the kernel kills the master with a test run that is itself killed; the rest follows
# its master by itself. The thread that starts a gateway has to live as long as the gateway does.
_TIED = ("setpriv", "--pdeathsig", "KILL", "--")

# What must never be on stderr, whatever a client or an upstream does.
_COMPLAINTS = re.compile(
    r"Traceback \(most recent call last\)|Exception in callback|exception was never retrieved|Unhandled|ResourceWarning"
    r"|was never awaited|has no effect when using ssl|SSL connection is closed|Fatal Python error|Segmentation fault"
)


def defaults(directory: Path, port: int, admin_port: int) -> dict[str, Any]:
    """The layer under every test's own configuration: one worker, quick timeouts, logs to files."""
    return {
        "server": {
            "bind": [f"127.0.0.1:{port}"],
            "workers": 1,
            "timeouts": {"head": "1s", "body_idle": "1s", "keepalive": "5s", "write_idle": "1s"},
            "drain": {"delay": "0s", "timeout": "5s"},
        },
        "log": {"level": "info", "format": "json", "access": str(directory / "access.log")},
        "admin": {"bind": f"127.0.0.1:{admin_port}"},
        "defaults": {
            "timeouts": {"connect": "500ms", "response": "1s", "read_idle": "1s", "tunnel_idle": "3s"},
            "pool": {"wait": "500ms"},
        },
    }


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings merge key by key, everything else replaces, as configuration layers do."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


@dataclass(frozen=True)
class Metrics:
    """A scrape: samples by name with their labels."""

    samples: tuple[tuple[str, Mapping[str, str], float], ...]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name that carry these labels; 0 where there is none."""
        return sum(value for key, has, value in self.samples if key == name and labels.items() <= dict(has).items())

    def labels(self, name: str, label: str) -> set[str]:
        """Every value a label of a metric has."""
        return {has[label] for key, has, _ in self.samples if key == name and label in has}

    @property
    def totals(self) -> dict[str, float]:
        """Counters (and what histograms count), each series by itself: what must never go down."""
        return {
            f"{name}{sorted(has.items())}": value
            for name, has, value in self.samples
            if name.endswith(("_total", "_count", "_sum", "_bucket"))
        }


class Gateway:
    """A running gateway.

    `config` (a mapping, merged over `defaults`, or the text of a whole file) is written to a directory of its own;
    `descriptors` limits what each process may have open, `stdout` is a descriptor for its standard output,
    `env` names the layer that it serves with, `environment` is added to one of only PATH, PYTHONPATH, HOME,
    XDG_STATE_HOME and SSL_CERT_FILE, which names the authority of the tests. As a context manager it is started, ready
    to serve, and stopped with `stop`, which asserts that nothing is left behind.
    """

    def __init__(
        self,
        config: Config | str,
        *,
        env: str = "dev",
        environment: Mapping[str, str] | None = None,
        descriptors: int | None = None,
        stdout: int | None = None,
        exit_codes: tuple[int, ...] = (0, 3),
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="gateway-")
        self.directory = Path(self._directory.name)
        self.port, self.admin_port = free_port(), free_port()
        self.config_file = self.directory / "gateway.yaml"
        self.access_file = self.directory / "access.log"
        self.env = env
        self.environment = dict(environment or {})
        self.descriptors = descriptors
        self._stdout = stdout
        self.exit_codes = exit_codes
        self.process: subprocess.Popen[bytes] | None = None
        self._stderr_seen = 0
        self.write_config(config)

    def __repr__(self) -> str:
        return f"<Gateway :{self.port} admin :{self.admin_port} pid {self.process and self.process.pid}>"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            self._directory.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.stop()
        finally:
            self.kill()
            self._directory.cleanup()

    def write_config(self, config: Config | str) -> None:
        """Write the configuration file; a mapping goes over the defaults."""
        if not isinstance(config, str):
            base = defaults(self.directory, self.port, self.admin_port)
            if "'https://" in repr(config):  # a handshake takes as long as the machine is busy
                base["defaults"]["timeouts"]["connect"] = "3s"
            config = yaml.safe_dump(merged(base, config), sort_keys=False)
        new = self.config_file.with_suffix(".new")
        new.write_text(config)
        new.replace(self.config_file)

    @property
    def command(self) -> list[str]:
        """The command line without its verb."""
        return [sys.executable, "-m", "devhost_server", "--env", self.env, "-c", str(self.config_file)]

    @property
    def full_environment(self) -> dict[str, str]:
        """The environment of the process and of the command line run beside it."""
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        return {
            **inherited,
            "HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SSL_CERT_FILE": str(authority().file),
        } | self.environment

    def launch(self) -> None:
        """Start the process without waiting for it."""
        with (self.directory / "stdout").open("ab") as out, (self.directory / "stderr").open("ab") as err:
            self.process = subprocess.Popen(
                [*_tie(), *self.command, "run"],
                cwd=self.directory,
                env=self.full_environment,
                stdin=subprocess.DEVNULL,
                stdout=self._stdout or out,
                stderr=err,
                start_new_session=True,
            )
        if self.descriptors:  # long before the interpreter has started; children inherit it
            resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (self.descriptors, self.descriptors))

    def start(self, timeout: float = 15.0) -> None:
        """Start the process and wait until it is ready and accepts on the public port."""
        self.launch()
        wait_until(self._is_up, timeout, f"the gateway being ready; stderr:\n{self.stderr()[-3000:]}")

    def _is_up(self) -> bool:
        if self.running is False:
            raise RuntimeError(f"the gateway ended with {self.exit_code} at start:\n{self.stderr()[-5000:]}")
        return self.ready() and accepts(self.port) and len(self.worker_pids()) >= self._workers()

    def _workers(self) -> int:
        """How many workers the configuration asks for in so many words."""
        workers = yaml.safe_load(self.config_file.read_text()).get("server", {}).get("workers", 1)
        return workers if isinstance(workers, int) else 1

    def ready(self) -> bool:
        """Whether /readyz says 200."""
        try:
            return self.admin("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def admin(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None, timeout: float = 10
    ) -> tuple[int, bytes]:
        """Ask the admin listener: status and body. Raises OSError when it is not there."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=timeout)
        with contextlib.closing(connection):
            content = None if body is None else json.dumps(body).encode()
            try:
                connection.request(method, path, content, {"Content-Type": "application/json", **(headers or {})})
                answer = connection.getresponse()
                return answer.status, answer.read()
            except http.client.HTTPException as error:
                raise ConnectionError(str(error)) from error

    def metrics(self) -> Metrics:
        """Scrape /metrics."""
        status, body = self.admin("GET", "/metrics")
        assert status == 200, (status, body)
        families = text_string_to_metric_families(body.decode())
        return Metrics(tuple((s.name, s.labels, s.value) for family in families for s in family.samples))

    def status(self) -> Any:
        """The answer of /api/status."""
        code, body = self.admin("GET", "/api/status")
        assert code == 200, (code, body)
        return json.loads(body)

    def reload(self) -> tuple[int, bytes]:
        """Ask for a reload and wait for its outcome: status and body of POST /api/reload."""
        return self.admin("POST", "/api/reload", timeout=20)

    def run(self, *arguments: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
        """Run the command line beside the running gateway."""
        return subprocess.run(
            [*self.command, *arguments],
            cwd=self.directory,
            env=self.full_environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    # -- what it wrote ------------------------------------------------------------------------------------------------

    def stderr(self) -> str:
        """Everything on stderr so far."""
        return _read(self.directory / "stderr")

    def stdout(self) -> str:
        """Everything on stdout so far."""
        return _read(self.directory / "stdout")

    def log_lines(self) -> list[dict[str, Any]]:
        """The lines of stderr that are JSON objects."""
        return [json.loads(line) for line in self.stderr().split("\n") if line.startswith("{")]

    def access_log(self) -> list[dict[str, Any]]:
        """The access log's lines that are whole so far."""
        text = _read(self.access_file)
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def access_entry(self, timeout: float = 2.0, **fields: Any) -> dict[str, Any]:
        """Wait for the access log line with these fields; the last one if there are several."""

        def find() -> list[dict[str, Any]]:
            return [line for line in self.access_log() if fields.items() <= line.items()]

        return wait_until(find, timeout, f"an access log line with {fields}; last: {self.access_log()[-3:]}")[-1]

    def complaints(self) -> list[str]:
        """Signs of an error nobody handled that came to stderr since the last call, with what surrounds them."""
        text = self.stderr()[self._stderr_seen :]
        self._stderr_seen += len(text)
        return [text[max(found.start() - 300, 0) : found.end() + 3000] for found in _COMPLAINTS.finditer(text)][:3]

    # -- processes ----------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The master."""
        assert self.process
        return self.process.pid

    @property
    def running(self) -> bool | None:
        """Whether the master lives; None before it was started."""
        return None if self.process is None else self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the master ended, None while it runs."""
        return self.process.poll() if self.process else None

    def processes(self) -> dict[int, str]:
        """Every living process of the gateway's session (zombies apart) with its title."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (title := _title_in_session(entry, self.pid)) is not None:
                found[int(entry.name)] = title
        return found

    def worker_pids(self) -> list[int]:
        """The workers, in the order of their pids."""
        return sorted(pid for pid, title in self.processes().items() if pid != self.pid and "worker" in title)

    def term(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the master."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = 10.0) -> int:
        """Wait for the master to end; its exit code."""
        assert self.process
        return self.process.wait(patient(timeout))

    def stop(self) -> None:
        """Stop gracefully and assert that it was clean: exit code, no process, no port, no complaint on stderr."""
        if self.running:
            self.term()
        code = self.wait(15)
        wait_until(lambda: not self.processes(), 2, "no process of the gateway being left")
        assert not accepts(self.port), "the public port still accepts"
        assert not accepts(self.admin_port), "the admin port still accepts"
        assert not (complaints := self.complaints()), complaints[0]
        assert code in self.exit_codes, f"exit code {code}, allowed {self.exit_codes}; stderr:\n{self.stderr()[-2000:]}"

    def discard(self) -> None:
        """Remove the directory of a gateway that was not used as a context manager."""
        self._directory.cleanup()

    def kill(self) -> None:
        """Kill whatever is left of it, without judging."""
        if self.process:
            for pid in [*self.processes(), self.pid]:
                if pid != self.pid or self.running:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)


@functools.cache
def _tie() -> tuple[str, ...]:
    """What ties a process to this one, where there is such a command."""
    try:
        works = subprocess.run([*_TIED, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        works = False
    return _TIED if works else ()


def _read(path: Path) -> str:
    return path.read_text(errors="backslashreplace") if path.exists() else ""


def _title_in_session(entry: Path, session: int) -> str | None:
    try:
        state, _, _, sid = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:4]
        if int(sid) != session or state == "Z":
            return None
        return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None


def rss_kib(pid: int) -> int:
    """Resident memory of a process in KiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def descriptors(pid: int) -> int:
    """How many file descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def cpu_seconds(pid: int) -> float:
    """User and system time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def now() -> float:
    """The monotonic clock."""
    return time.monotonic()
