"""Nothing is imported while the gateway runs: what is installed may be replaced or removed under it meanwhile."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path

import devhost_server
from tests.integration.helpers import EchoGateway, replaced
from tests.support import RawClient, free_port, request, wait_until
from tests.support.websocket import handshake

# Runs in every interpreter of the gateway: writes down what is imported, and by which process.
WATCH = """
    import os, sys

    IMPORTS = os.environ["IMPORTS"]

    class Watch:
        @staticmethod
        def find_spec(name, path=None, target=None):
            with open(IMPORTS, "a") as file:
                file.write(f"{os.getpid()} {name}\\n")

    sys.meta_path.insert(0, Watch)
"""


class WatchedGateway(EchoGateway):
    """A gateway that writes down what it imports, with routes of every kind."""

    def __init__(self, directory: Path, tls_port: int) -> None:
        self.imports = directory / "imports"
        modules = directory / "modules"
        modules.mkdir()
        (modules / "sitecustomize.py").write_text(textwrap.dedent(WATCH))
        super().__init__(
            workers=2,
            environment={"IMPORTS": str(self.imports), "PYTHONPATH": f"{modules}:{os.environ.get('PYTHONPATH', '')}"},
            routes={
                "refused": {"host": "refused.test", "to": f"http://127.0.0.1:{free_port()}"},
                "named": {"host": "named.test", "to": "http://localhost:1"},
                "unresolved": {"host": "unresolved.test", "to": "http://no-such-name.invalid:1"},
                "tls": {"host": "tls.test", "to": f"https://localhost:{tls_port}"},
                "socket": {"host": "socket.test", "to": f"unix:{directory}/nobody.sock"},
            },
            log={"level": "debug"},
        )

    def imported(self) -> list[str]:
        return self.imports.read_text().splitlines() if self.imports.exists() else []


@contextlib.contextmanager
def tls_server(directory: Path) -> Iterator[int]:
    """A server whose certificate nobody knows: the handshake fails when ours has seen it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost"
    subprocess.run(command.split(), cwd=directory, check=True, capture_output=True)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pid = os.fork()
        if not pid:
            while True:
                with contextlib.suppress(OSError):
                    peer, _ = listener.accept()
                    with context.wrap_socket(peer, server_side=True) as secure:
                        secure.recv(100)
        try:
            yield listener.getsockname()[1]
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def work_out(gateway: EchoGateway) -> None:
    """Have every process do what it can do."""
    for host in ("echo.test", "refused.test", "named.test", "unresolved.test", "tls.test", "socket.test"):
        for accept in ("text/html", "application/problem+json", "text/plain"):
            with RawClient(gateway.port) as client:
                client.send(request("GET", "/headers?token=a", host=host, headers={"Accept": accept}))
                assert client.read_response().status in {200, 502, 504}
    for target in ("/bytes/100000", "/status/500", "/sse?count=2", "/headers", "/nothing"):
        assert gateway.get(target).complete
    with RawClient(gateway.port) as client:
        client.send(request("POST", "/", headers={"Transfer-Encoding": "chunked"}) + b"3\r\nabc\r\n0\r\n\r\n")
        assert client.read_response().status == 200
    with RawClient(gateway.port) as client:
        client.send(b"\x16\x03\x01 nonsense\r\n\r\n")
        client.read_response()
    with RawClient(gateway.port) as client:
        client.send(handshake("/ws"))
        assert client.read_response().status == 101
    paths = ("/healthz", "/readyz", "/metrics", "/api/status", "/api/routes", "/api/upstreams", "/api/config")
    for path in (*paths, "/", "/nothing", "/%ff?%ff=1", "/api/events", "/api/explain"):
        for headers in ({}, {"Accept": "application/openmetrics-text"}, {"Host": "evil.test"}, {"If-None-Match": "*"}):
            assert gateway.admin("GET", path, headers=headers)[0] < 502
    gateway.admin("POST", "/api/reload", headers={"Authorization": "Bearer wrong"}, timeout=20)
    gateway.admin("POST", "/api/reload", body={"a": 1}, headers={"If-Match": '"x"'})
    with RawClient(gateway.admin_port) as client:
        client.send(b"nonsense\r\n\r\n")
        assert client.read_response().status == 400


def change_configuration(gateway: EchoGateway) -> None:
    """Reload what is new, what is international, and what is wrong in many ways."""
    good = gateway.config_file.read_text()
    gateway.settings["routes"]["international"] = {"host": "bücher.example", "to": gateway.echo_url}
    gateway.settings["routes"]["latin"] = {"host": "*.straße.example", "to": "http://täget.example:1"}
    gateway.write_config(gateway.settings)
    assert gateway.reload()[0] == 200
    assert gateway.get(host="xn--bcher-kva.example").status == 200
    for wrong in (
        "server: [",
        "server: {wrokers: 1}\nlog: {level: x}",
        "routes: {a: {host: 'ex_.ß..', to: x}}",
        "a: &a [*a]",
    ):
        gateway.config_file.write_text(wrong)
        assert gateway.reload()[0] == 422
    gateway.config_file.write_text(good)
    assert gateway.reload()[0] == 200
    gateway.term(signal.SIGUSR1)
    gateway.term(signal.SIGUSR2)
    wait_until(lambda: any("USR2" in line for line in gateway.messages("error")), 5)


def kill_one_of_each(gateway: EchoGateway) -> None:
    """Kill a worker, the control process and the echo upstream, and wait for those that take their places."""
    dead = gateway.worker_pids()[0]
    os.kill(dead, signal.SIGKILL)
    replaced(gateway, dead, 2)
    for name in ("control", "echo"):
        (pid,) = gateway.titled(f": {name}")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: gateway.titled(f": {name}") not in ([], [pid]), 5)  # noqa: B023 -- called at once
    wait_until(gateway.ready, 5)
    wait_until(lambda: gateway.get().status == 200, 5)


def test_nothing_is_imported_once_it_is_ready(tmp_path: Path) -> None:
    with tls_server(tmp_path) as tls_port:
        gateway = WatchedGateway(tmp_path, tls_port)
        with gateway:
            before = len(gateway.imported())
            master = gateway.pid
            work_out(gateway)
            change_configuration(gateway)
            kill_one_of_each(gateway)
            work_out(gateway)
        lines = gateway.imported()
    late = lines[before:]
    early = [line for line in lines[:before] if not line.startswith(f"{master} ")]
    assert before > 300, "the watch does not see"
    assert (early, late) == ([], [])


class MovableGateway(EchoGateway):
    """A gateway whose packages, its own included, can be moved away."""

    def __init__(self, directory: Path) -> None:
        self.site = directory / "site"
        self.site.mkdir()
        for folder in map(Path, (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))):
            for entry in folder.iterdir():
                if not (self.site / entry.name).is_symlink():
                    (self.site / entry.name).symlink_to(entry)
        (self.site / "devhost_server").unlink(missing_ok=True)
        (self.site / "devhost_server").symlink_to(Path(devhost_server.__file__).parent)
        super().__init__(workers=2, environment={"PYTHONPATH": str(self.site)})
        self.settings["routes"] |= {"refused": {"host": "refused.test", "to": f"http://127.0.0.1:{free_port()}"}}
        self.write_config(self.settings)

    @property
    def command(self) -> list[str]:
        python, *rest = super().command
        return [python, "-S", *rest]


def test_packages_that_are_moved_away_are_not_missed(tmp_path: Path) -> None:
    with MovableGateway(tmp_path) as gateway:
        assert gateway.get().status == 200
        gateway.site.rename(tmp_path / "elsewhere")
        assert gateway.run("status").returncode != 0, "whatever is started now finds nothing"
        change_configuration(gateway)
        kill_one_of_each(gateway)
        for path in ("/healthz", "/readyz", "/metrics", "/api/status", "/api/routes", "/api/upstreams", "/api/config"):
            assert gateway.admin("GET", path)[0] == 200, path
        for host, status in (("echo.test", 200), ("refused.test", 502)):
            assert gateway.get(host=host).status == status
        with RawClient(gateway.port) as client:
            client.send(handshake("/ws"))
            assert client.read_response().status == 101
        assert gateway.admin("POST", "/api/drain")[0] == 202
        assert gateway.wait(15) == 0


def test_the_httpx_door_finds_everything_there() -> None:
    code = """
        import asyncio, sys
        from devhost_server.processes import start
        from devhost_server.upstream.client import UpstreamPool
        start.preload()

        async def ask():
            client = UpstreamPool(lambda name: None).client()
            try:
                await client.get("http://nobody/path?a=b", headers={"X-A": "b"})
            except Exception as error:
                print(type(error).__module__)
            await client.aclose()

        known = set(sys.modules)
        asyncio.run(ask())
        print(sorted(set(sys.modules) - known))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout == "httpx\n[]\n"
