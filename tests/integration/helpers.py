"""What the tests of processes need beside `tests.support`: many clients at once, memory, supervisors, dead workers."""

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support import Gateway, RawClient, Response, free_port, request, wait_until
from tests.support.waiting import patient

DRAINED = re.compile(r"drained: finished (\d+), closed (\d+) websockets, cut (\d+)")
# Long enough that no test runs into them, on a machine that is busy with other things too.
PATIENT = {
    "server": {"timeouts": {"head": "10s", "body_idle": "10s", "keepalive": "30s", "write_idle": "20s"}},
    "defaults": {"timeouts": {"connect": "3s", "response": "20s", "read_idle": "20s", "tunnel_idle": "60s"}},
}


class EchoGateway(Gateway):
    """A gateway in front of its own echo upstream, so that the load comes from one process and goes to others.

    `prefix` is what its command line begins with, such as `taskset`.
    """

    def __init__(
        self,
        workers: int = 1,
        *,
        prefix: Sequence[str] = (),
        routes: Mapping[str, Any] | None = None,
        server: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        exit_codes: tuple[int, ...] = (0,),
        stdout: int | None = None,
        **config: Any,
    ) -> None:
        self.echo_port = free_port()
        self.prefix = list(prefix)
        self.settings: dict[str, Any] = {
            "server": {**PATIENT["server"], "workers": workers, **(server or {})},
            "defaults": PATIENT["defaults"],
            "echo": {"bind": f"127.0.0.1:{self.echo_port}"},
            "routes": {"echo": {"host": "*", "to": self.echo_url}, **(routes or {})},
            **config,
        }
        super().__init__(self.settings, environment=environment, stdout=stdout, exit_codes=exit_codes)

    @property
    def echo_url(self) -> str:
        """Where the echo upstream is."""
        return f"http://127.0.0.1:{self.echo_port}"

    @property
    def command(self) -> list[str]:
        """The command line without its verb."""
        return [*self.prefix, *super().command]

    def titled(self, word: str) -> list[int]:
        """The processes beside the master whose title has this word."""
        return sorted(pid for pid, title in self.processes().items() if pid != self.pid and word in title)

    def get(self, target: str = "/", host: str = "wire.test") -> Response:
        """One GET on a connection of its own."""
        with RawClient(self.port) as client:
            client.send(request("GET", target, host=host))
            return client.read_response()

    @property
    def receipt(self) -> tuple[int, int, int]:
        """Finished, closed, cut: what the last line says."""
        lines = self.stderr().strip().splitlines()
        assert lines, "nothing on stderr"
        found = DRAINED.search(lines[-1])
        assert found, f"the last line is no receipt: {lines[-5:]}"
        return int(found[1]), int(found[2]), int(found[3])

    def messages(self, level: str) -> list[str]:
        """What was logged at a level."""
        return [line["message"] for line in self.log_lines() if line["level"] == level]


# -- many clients ------------------------------------------------------------------------------------------------------


@dataclass
class Storm:
    """Many connections at once, from an event loop in a thread of its own, each with one request after the other.

    `outcomes` counts statuses, and failures by kind: ``refused`` (no connection), ``idle`` (a connection that had
    served was closed before it took the request), ``lost`` (a request on a new connection got no answer), ``cut`` (an
    answer ended in its middle), ``slow``. `total` stops it after so many requests; without, it goes on until `stop`.
    With `until_refused` a client is content when its connection is refused. `pause` is seconds between two requests of
    a client; `fresh` gives every request its own connection.
    """

    port: int
    connections: int = 8
    total: int | None = None
    pause: float = 0.0
    fresh: bool = False
    until_refused: bool = False
    requests: Sequence[bytes] = (request(),)
    timeout: float = 20.0
    outcomes: Counter[int | str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    started: int = 0

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def count(self) -> int:
        """How many requests have come to an end, good or bad."""
        return sum(self.outcomes.values())

    @property
    def bad(self) -> dict[int | str, int]:
        """What was not a 200."""
        return {outcome: count for outcome, count in self.outcomes.items() if outcome != 200}

    def join(self, timeout: float) -> None:
        """Wait until every client is done."""
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"still going: {self.outcomes}"

    def stop(self) -> None:
        """Let every client finish the request it is at."""
        self._stopping.set()
        self._thread.join(self.timeout + 5)

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self.connections):
                group.create_task(self._client())

    def _more(self) -> bool:
        if self._stopping.is_set() or (self.total is not None and self.started >= self.total):
            return False
        self.started += 1
        return True

    async def _client(self) -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while self._more():
            kind = "idle" if streams else "lost"
            try:
                streams = streams or await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                self._failed("refused", "")
                if self.until_refused:
                    return
                await asyncio.sleep(0.05)
                continue
            streams = await self._exchange(streams, self.requests[self.started % len(self.requests)], kind)
            if self.pause:
                await asyncio.sleep(self.pause)
        if streams:
            streams[1].close()

    async def _exchange(
        self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], data: bytes, kind: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        reader, writer = streams
        began = time.monotonic()
        head = b""
        try:
            async with asyncio.timeout(self.timeout):
                writer.write(data)
                head = await reader.readuntil(b"\r\n\r\n")
                await _read_body(reader, head)
        except TimeoutError:
            self._failed("slow", repr(data[:80]))
        except asyncio.IncompleteReadError as error:
            self._failed("cut" if head or error.partial else kind, repr(error))
        except OSError as error:
            self._failed("cut" if head else kind, repr(error))
        else:
            self.latencies.append(time.monotonic() - began)
            self.outcomes[int(head[9:12])] += 1
            if not self.fresh and b"connection: close" not in head.lower():
                return streams
        writer.close()
        return None

    def _failed(self, kind: str, detail: str) -> None:
        self.outcomes[kind] += 1
        self.details.append(f"{kind}: {detail}")


async def _read_body(reader: asyncio.StreamReader, head: bytes) -> None:
    fields = head.lower()
    length = re.search(rb"\r\ncontent-length: *(\d+)", fields)
    if length:
        await reader.readexactly(int(length[1]))
    elif b"transfer-encoding: chunked" in fields:
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            await reader.readexactly(size + 2)
        await reader.readuntil(b"\r\n")


# -- memory ------------------------------------------------------------------------------------------------------------


def pss_kib(pid: int) -> int:
    """Proportional set size of a process in KiB: its own memory and its share of what it shares."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)[1])  # type: ignore[index]


def private_kib(pid: int) -> int:
    """What a process shares with no other, in KiB: others that come and go do not change it."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(map(int, re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+) kB", text, re.MULTILINE)))


def tree_kib(gateway: Gateway) -> int:
    """Proportional set size of all processes of a gateway together, in KiB."""
    total = 0
    for pid in gateway.processes():
        with contextlib.suppress(OSError):  # it may have ended meanwhile
            total += pss_kib(pid)
    return total


class Peak:
    """The most memory that a gateway's processes have together while the block runs, in KiB over what they had."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._before = tree_kib(gateway)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.growth = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(5)

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.growth = max(self.growth, tree_kib(self._gateway) - self._before)


# -- starts that fail, and who starts ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """A run that is over: its exit code, what it said, how long it took, and what was left running."""

    code: int
    stderr: str
    stdout: str
    seconds: float
    left: tuple[int, ...]

    @property
    def lines(self) -> list[str]:
        """The lines of stderr."""
        return self.stderr.splitlines()


def run_to_end(*arguments: str, prefix: Sequence[str] = (), timeout: float = 15.0, **environment: str) -> Ended:
    """Run the program in an empty directory with an empty HOME until it ends by itself."""
    with tempfile.TemporaryDirectory(prefix="run-") as directory:
        inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        began = time.monotonic()
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "devhost_server", *arguments],
            cwd=directory,
            env={**inherited, "HOME": directory, "PYTHONDONTWRITEBYTECODE": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(timeout=patient(timeout))
        finally:
            left = tuple(members(process.pid))
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
        return Ended(process.returncode, stderr, stdout, time.monotonic() - began, left)


def members(session: int) -> Iterator[int]:
    """The living processes of a session."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                state, _, _, sid = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:4]
                if int(sid) == session and state != "Z":
                    yield int(entry.name)


class Supervisor:
    """The socket on which systemd hears from a service of `Type=notify`."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.setblocking(False)
        self.heard: list[dict[str, str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    @property
    def environment(self) -> dict[str, str]:
        """What systemd puts into the environment."""
        return {"NOTIFY_SOCKET": str(self.path)}

    def states(self) -> list[dict[str, str]]:
        """Everything heard so far, each message as a mapping."""
        with contextlib.suppress(BlockingIOError):
            while True:
                text = self._socket.recv(4096).decode()
                self.heard.append(dict(line.split("=", 1) for line in text.splitlines()))
        return self.heard

    def has(self, key: str) -> bool:
        """Whether a message with this key has come."""
        return any(key in message for message in self.states())


def replaced(gateway: Gateway, dead: int, count: int) -> list[int]:
    """Wait until so many workers are ready without the dead one; their pids."""

    def ready() -> list[int]:
        workers = gateway.status()["workers"]
        pids = [worker["pid"] for worker in workers if worker["state"] == "ready"]
        return pids if len(pids) == count and dead not in pids else []

    return wait_until(ready, 5, f"{count} ready workers without {dead}")
