"""The laboratory of one piece of work: the upstream and every proxy, running, each on its cores, stopped at the end."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from . import proc, upstream
from .machine import Cores
from .proxies import CHECKOUT, PROXIES, Proxy, Setting, UnavailableError, Variant

START_SECONDS = 30.0
STOP_SECONDS = 8.0
_FIRST_PORT = 18_100  # below the range from which the kernel takes ports for outgoing connections


class LabError(Exception):
    """Something that has to run does not."""


@dataclass(frozen=True)
class Contender:
    """A running proxy."""

    name: str
    variant: Variant
    port: int
    process: subprocess.Popen[bytes]
    directory: Path

    @property
    def host(self) -> str:
        """A host that it has a route for."""
        return "r0.bench.test" if self.variant.routes > 1 else "bench.test"

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far."""
        return proc.cpu_seconds(self.process.pid)

    def memory(self) -> proc.Memory:
        """Memory of all its processes."""
        return proc.tree_memory(self.process.pid)


class Lab:
    """A context that stops what was started in it. With `echoes`, the upstream is the WebSocket echo."""

    def __init__(self, cores: Cores, *, echoes: bool = False) -> None:
        self.cores = cores
        self._echoes = echoes
        self.contenders: list[Contender] = []
        self._stack = contextlib.ExitStack()
        self._ports = free_ports()

    def __enter__(self) -> Self:
        raise_descriptor_limit()
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="comparing-")))
        self.directory.chmod(0o755)  # nginx's workers give up root and must still reach what they serve
        self.upstream_port = next(self._ports)
        try:
            self._start_upstream()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start_upstream(self) -> None:
        place = self._place("upstream")
        if self._echoes:
            command = generator("websocket", "echo", str(self.upstream_port))
        else:
            nginx, configuration = PROXIES["nginx"].executable(), upstream.write(place, self.upstream_port)
            command = [nginx, "-e", "stderr", "-p", str(place), "-c", str(configuration)]
        self.start("upstream", command, self.cores.load, place, generator_environment())
        wait_for(lambda: answers(self.upstream_port, "bench.test"), "the upstream", self.directory / "upstream.out")

    def enter(self, proxy: Proxy, variant: Variant) -> Contender:
        """Start a proxy; it has to be awaited with `ready`. Raises `UnavailableError`."""
        if not proxy.supports(variant):
            raise UnavailableError(f"{proxy.name}: no configuration for {variant.label}")
        place = self._place(f"{proxy.name}-{len(self.contenders)}")
        setting = Setting(next(self._ports), self.upstream_port, place, variant)
        command = proxy.command(setting)
        proxy.write(setting)
        cores = self.cores.proxy if variant.workers == 1 else self.cores.proxies
        process = self.start(place.name, command, cores, place, proxy.environment(setting))
        contender = Contender(proxy.name, variant, setting.port, process, place)
        self.contenders.append(contender)
        return contender

    def ready(self) -> dict[int, str]:
        """Wait until the proxies answer through to the upstream; give what those that do not said, by process id."""
        failed: dict[int, str] = {}
        for contender in self.contenders:
            what = f"{contender.name} {contender.variant.label}".strip()
            try:
                wait_for(partial(_serves, contender), what, self.directory / f"{contender.directory.name}.out")
            except LabError as error:
                failed[contender.process.pid] = str(error)
        return failed

    def start(
        self, name: str, command: list[str], cores: str, directory: Path, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start a process on its cores; it is stopped with the laboratory."""
        with (self.directory / f"{name}.out").open("wb") as output:
            process = subprocess.Popen(
                ["taskset", "-c", cores, *command],
                cwd=directory,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._stack.callback(stop, process)
        return process

    def _place(self, name: str) -> Path:
        place = self.directory / name
        place.mkdir()
        return place


def _serves(contender: Contender) -> bool:
    if contender.process.poll() is not None:
        raise LabError(f"it ended with {contender.process.returncode}")
    return answers(contender.port, contender.host)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process with all its descendants, gently first."""
    if process.poll() is not None:
        return
    family = proc.pids(process.pid)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        for pid in family[1:]:  # a killed master leaves its workers behind
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)


def wait_for(
    condition: Callable[[], bool], what: str, output: Path | None = None, patience: float = START_SECONDS
) -> None:
    """Wait until a condition holds. Raises `LabError` with the end of `output`."""
    until = time.monotonic() + patience
    why = f"not ready after {patience:g} s"
    try:
        while time.monotonic() < until:
            if condition():
                return
            time.sleep(0.02)
    except LabError as error:
        why = str(error)
    said = output.read_text(errors="replace").strip()[-600:] if output else ""
    raise LabError(f"{what}: {why}" + (f"; it said:\n{said}" if said else ""))


def answers(port: int, host: str) -> bool:
    """Whether a GET is answered with 200."""
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as link:
            link.sendall(request)
            return link.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def free_ports(first: int = _FIRST_PORT) -> Iterator[int]:
    """Ports of the loopback address on which nobody listens."""
    for port in range(first, 32_000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT does not hinder a server
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port


def raise_descriptor_limit() -> None:
    """Let this process and those it starts open as many files as they may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def generator(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this package as a process of its own."""
    return [sys.executable, "-m", f"loadtests.comparing.{module}", *arguments]


def generator_environment() -> dict[str, str]:
    """What lets such a process find this package."""
    return {"PYTHONPATH": str(CHECKOUT)}
