"""Starting: what is wrong is a sentence and exit code 1; what is right is ready when it says so."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.helpers import EchoGateway, Ended, Supervisor, run_to_end
from tests.support import RawClient, ScriptedUpstream, free_port, request, wait_until
from tests.support.gateway import descriptors
from tests.support.net import accepts
from tests.support.waiting import patient, seconds_since

MINIMAL = "routes: {ping: {host: '*', respond: {status: 200}}}"


def assert_refused(ended: Ended, *said: str, lines: int = 4) -> None:
    """A sentence or a few, exit code 1, nothing left running."""
    assert ended.code == 1, ended
    assert "Traceback" not in ended.stderr, ended.stderr
    assert ended.left == ()
    assert 1 <= len(ended.lines) <= lines, ended.stderr
    for text in said:
        assert text in ended.stderr


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file to be written."""
    return tmp_path / "gateway.yaml"


def config(port: int, *, admin: str | int = "null", more: str = "") -> str:
    bind = f"127.0.0.1:{admin}" if isinstance(admin, int) else admin
    return f"server: {{bind: '127.0.0.1:{port}', workers: 1}}\nadmin: {{bind: {bind}}}\n{MINIMAL}\n{more}\n"


# -- bad configuration -------------------------------------------------------------------------------------------------

BAD = {  # each kind once: tests/config has the many
    "several at once": (
        "server: {wrokers: 2, bind: nowhere}\nadmin: {bnd: x}\n",
        ("server.wrokers", "did you mean", "server.bind", "admin.bnd"),
    ),
    "no YAML": ("server: [\n", ("gateway.yaml:",)),
    "an unset variable": ("domain: '${NOT_SET_ANYWHERE}'\n", ("NOT_SET_ANYWHERE", "gateway.yaml:1:")),
    "a secret file that is not there": ("admin: {token: '${file:/nowhere/token}'}\n", ("/nowhere/token",)),
    "what is not built": ("server: {watch: true}\n", ("server.watch",)),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_configuration_is_told_with_its_place(file: Path, kind: str) -> None:
    text, said = BAD[kind]
    file.write_text(text)
    assert_refused(run_to_end("-c", str(file), "run"), *said)


def test_an_unknown_environment_is_told(tmp_path: Path) -> None:
    (tmp_path / "devhost.yaml").write_text(MINIMAL)
    ended = run_to_end("--config-dir", str(tmp_path), "--env", "nowhere", "run")
    assert_refused(ended, "devhost.nowhere.yaml")
    assert_refused(run_to_end("--config-dir", str(tmp_path), DEVHOST_ENV="elsewhere"), "devhost.elsewhere.yaml")


def test_a_secret_file_without_permission_is_told(file: Path, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("hidden")
    secret.chmod(0)
    file.write_text(f"admin: {{token: '${{file:{secret}}}'}}\n")
    as_anybody = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.getuid() == 0 else ()
    assert_refused(run_to_end("-c", str(file), "run", prefix=as_anybody), str(secret), "ermission")


def test_a_file_that_is_not_there_is_told() -> None:
    assert_refused(run_to_end("-c", "nowhere.yaml", "run"), "nowhere.yaml")


def test_a_usage_error_is_exit_code_2() -> None:
    ended = run_to_end("runn")
    assert (ended.code, ended.left) == (2, ())


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["second public", "admin", "echo"])
def test_an_address_in_use_is_told_and_the_others_are_given_up(file: Path, tmp_path: Path, which: str) -> None:
    ports = {name: free_port() for name in ("public", "second public", "admin", "echo")}
    path = tmp_path / "public.sock"
    file.write_text(
        f"server: {{bind: ['unix:{path}', '127.0.0.1:{ports['public']}', '127.0.0.1:{ports['second public']}']}}\n"
        f"admin: {{bind: '127.0.0.1:{ports['admin']}'}}\necho: {{bind: '127.0.0.1:{ports['echo']}'}}\n{MINIMAL}\n"
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[which]))
        taken.listen()
        assert_refused(run_to_end("-c", str(file), "run"), f"127.0.0.1:{ports[which]}", "in use", lines=1)
    assert not path.exists(), "the socket that could be made is removed again"


def test_a_unix_socket_in_use_is_told_and_left_alone(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    file.write_text(f"server: {{bind: 'unix:{path}'}}\nadmin: {{bind: null}}\n{MINIMAL}\n")
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen()
        assert_refused(run_to_end("-c", str(file), "run"), str(path), "in use", lines=1)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


@pytest.mark.parametrize("kind", ["a file", "a directory without permission"])
def test_a_path_that_cannot_be_a_socket_is_told(file: Path, tmp_path: Path, kind: str) -> None:
    path, prefix = tmp_path / "dir" / "s.sock", ()
    if kind == "a file":
        path = tmp_path / "s.sock"
        path.write_text("precious")
    elif kind == "a directory without permission":
        path.parent.mkdir(mode=0o500)
        prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.getuid() == 0 else ()
    file.write_text(f"server: {{bind: 'unix:{path}'}}\nadmin: {{bind: null}}\n{MINIMAL}\n")
    assert_refused(run_to_end("-c", str(file), "run", prefix=prefix), str(path), lines=1)
    if kind == "a file":
        assert path.read_text() == "precious"


def test_a_privileged_port_is_told(file: Path) -> None:
    floor = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if floor <= 81:
        pytest.skip("every user of this machine may bind port 81")
    file.write_text(f"server: {{bind: '127.0.0.1:81'}}\nadmin: {{bind: null}}\n{MINIMAL}\n")
    without_right = ("setpriv", "--bounding-set=-net_bind_service") if os.getuid() == 0 else ()
    ended = run_to_end("-c", str(file), "run", prefix=without_right)
    assert_refused(ended, "127.0.0.1:81", "CAP_NET_BIND_SERVICE", lines=1)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-name.invalid"])
def test_an_address_that_is_not_ours_is_told(file: Path, host: str) -> None:
    file.write_text(f"server: {{bind: '{host}:{free_port()}'}}\nadmin: {{bind: null}}\n{MINIMAL}\n")
    assert_refused(run_to_end("-c", str(file), "run"), host, lines=1)


def test_every_kind_of_address_serves_and_is_counted_by_its_own_name() -> None:
    with ExitStack() as stack:
        gateway = EchoGateway(workers=2)
        six, anywhere, path = free_port(), free_port(), gateway.directory / "public.sock"
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(str(path))
        stale.close()  # as a killed gateway leaves it behind
        binds = [f"127.0.0.1:{gateway.port}", f"[::1]:{six}", f"0.0.0.0:{anywhere}", f"unix:{path}"]
        gateway.settings["server"]["bind"] = binds
        gateway.write_config(gateway.settings)
        stack.enter_context(gateway)
        clients = [
            stack.enter_context(RawClient(gateway.port)),
            stack.enter_context(RawClient(six, host="::1")),
            stack.enter_context(RawClient(anywhere)),
            stack.enter_context(_unix_client(path)),
        ]
        for client in clients:
            client.send(request())
            assert client.read_response().status == 200

        def counted() -> bool:
            metrics = gateway.metrics()
            return all(metrics.value("devhost_connections", listener=bind) == 1 for bind in binds)

        wait_until(counted, 2, "one connection for each listener")
        addresses = (f"127.0.0.1:{gateway.port}", f"[::1]:{six}", f"0.0.0.0:{anywhere}", f"unix:{path}")
        (ready,) = (line for line in gateway.messages("info") if line.startswith("ready"))
        assert all(address in ready for address in addresses)
        for client in clients:
            client.close()
    assert not path.exists(), "the socket is removed when it ends"


class _UnixClient(RawClient):
    def __init__(self, path: Path) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        super(RawClient, self).__init__(sock)


def _unix_client(path: Path) -> RawClient:
    return _UnixClient(path)


def test_port_0_is_any_free_one_and_is_told() -> None:
    gateway = EchoGateway()
    gateway.settings["server"]["bind"] = [f"127.0.0.1:{gateway.port}", "127.0.0.1:0"]
    gateway.write_config(gateway.settings)
    with gateway:
        # Its workers are ready a moment before the master says so.
        (ready,) = wait_until(lambda: [line for line in gateway.messages("info") if line.startswith("ready")], 3)
        chosen = int(ready.split("127.0.0.1:")[2].split(",")[0])
        assert chosen
        with RawClient(chosen) as client:
            client.send(request())
            assert client.read_response().status == 200
        assert gateway.reload()[0] == 200, "the configuration still says 0, and that is no change"


@pytest.mark.parametrize("kind", ["no folder", "a folder"])
def test_an_access_log_that_cannot_be_opened_is_told(file: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "no" / "access.log" if kind == "no folder" else tmp_path
    file.write_text(config(free_port(), more=f"log: {{access: '{path}'}}"))
    assert_refused(run_to_end("-c", str(file), "run"), f"log.access: cannot write to {path}: ", lines=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_it_says_what_is_ready(workers: int) -> None:
    with EchoGateway(workers=workers) as gateway:
        serving = "1 worker serves" if workers == 1 else "2 workers serve"
        line = f"ready: {serving} http://127.0.0.1:{gateway.port}, admin on 127.0.0.1:{gateway.admin_port}"
        wait_until(lambda: line in gateway.messages("info"), 3)


def test_without_an_admin_listener_it_says_so() -> None:
    gateway = EchoGateway(admin={"bind": None})
    try:
        gateway.launch()
        wait_until(lambda: accepts(gateway.port), 5)
        wait_until(lambda: any(line.endswith(", admin off") for line in gateway.messages("info")), 5)
        gateway.stop()
    finally:
        gateway.kill()
        gateway.discard()


def test_no_admin_listener_and_unix_admin_listener(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    gateway = EchoGateway(admin={"bind": f"unix:{path}"})
    try:
        gateway.launch()
        wait_until(lambda: accepts(gateway.port), 5)
        status = gateway.run("status", "--json")
        assert status.returncode == 0, status.stderr
        assert '"running"' in status.stdout
        assert gateway.run("reload").returncode == 0
        gateway.stop()
        assert not path.exists(), "the admin socket is removed as well"
    finally:
        gateway.kill()
        gateway.discard()


# A machine without a place for temporary files: no /dev/shm, and no folder of those that Python looks through.
NOWHERE = """
import os, tempfile

def nowhere(*_arguments, **_options):
    raise FileNotFoundError(2, "No usable temporary directory found")

for name in ("mkstemp", "mkdtemp", "gettempdir", "NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile"):
    setattr(tempfile, name, nowhere)
listed = os.access
os.access = lambda path, *rest, **options: not str(path).startswith("/dev/shm") and listed(path, *rest, **options)
"""


def test_no_temporary_directory_is_needed(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOWHERE)
    with EchoGateway(environment={"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}) as gateway:
        assert gateway.get().status == 200
        assert gateway.reload()[0] == 200
        assert gateway.metrics().value("devhost_build_info") == 1
        os.kill(gateway.worker_pids()[0], signal.SIGKILL)
        wait_until(lambda: gateway.worker_pids() and gateway.ready(), 5)
        assert gateway.get().status == 200


def test_a_working_directory_that_is_gone_does_not_matter() -> None:
    """Neither at the start, nor when it goes away later."""
    gateway = EchoGateway(prefix=("sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$0" "$@"'))
    with gateway:
        assert os.readlink(f"/proc/{gateway.pid}/cwd") == "/"
        assert gateway.get().status == 200
        assert gateway.reload()[0] == 200
    gateway = EchoGateway(prefix=("sh", "-c", 'mkdir later && cd later && exec "$0" "$@"'))
    with gateway:
        (gateway.directory / "later").rmdir()
        assert gateway.reload()[0] == 200
        os.kill(gateway.worker_pids()[0], signal.SIGKILL)
        wait_until(lambda: gateway.worker_pids() and gateway.ready(), 5)
        assert gateway.get().status == 200


# -- what workers are given --------------------------------------------------------------------------------------------


def test_workers_cannot_write_what_is_published_and_are_not_given_the_tokens() -> None:
    admin = {"token": "the-admin-token", "tokens": {"alice": "the-token-of-alice"}}
    with EchoGateway(workers=2, admin=admin) as gateway:
        headers = {"Authorization": "Bearer the-token-of-alice"}
        assert gateway.admin("POST", "/api/reload", headers=headers, timeout=20)[0] == 200, "a reload changes nothing"
        others = [pid for pid in gateway.processes() if pid != gateway.pid]
        assert len(others) == 4
        for pid in others:
            assert not _writable_publications(pid)
            for link in _publications(pid):
                assert b"the-admin" not in (published := _beginning(link))
                assert b"of-alice" not in published
                assert b"alice" in published or not published.strip(b"\0")
                with pytest.raises(PermissionError):
                    os.write(os.open(link, os.O_RDWR), b"a lie")
        assert any(_publications(pid) for pid in gateway.worker_pids())
        audits = [line for line in gateway.messages("info") if "POST /api/reload by alice" in line]
        assert audits == ["POST /api/reload by alice, from 127.0.0.1: 200"]


def test_workers_are_not_given_the_variables_of_the_configuration() -> None:
    environment = {"DEVHOST__ADMIN__TOKEN": "the-admin-token", "ANY_NAME": "what-nobody-may-know", "LC_TIME": "C"}
    gateway = EchoGateway(environment=environment)
    gateway.settings["routes"]["said"] = {"host": "said.test", "respond": {"headers": {"x-any": "${ANY_NAME}"}}}
    gateway.write_config(gateway.settings)
    with gateway:
        for pid in gateway.processes():
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            assert b"the-admin-token" not in environ
            assert b"what-nobody" not in environ
        headers = {"Authorization": "Bearer the-admin-token"}
        assert gateway.admin("POST", "/api/reload", timeout=20)[0] == 401
        assert gateway.admin("POST", "/api/reload", headers=headers, timeout=20)[0] == 200, "the master has it still"


def _beginning(link: Path) -> bytes:
    with link.open("rb") as file:
        return file.read(1 << 20)


def _publications(pid: int) -> list[Path]:
    links = Path(f"/proc/{pid}/fd").iterdir()
    return [link for link in links if os.readlink(link).startswith("/memfd:devhost-server")]


def _writable_publications(pid: int) -> list[str]:
    """The mappings through which a process can write what is published."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return [line for line in lines if "memfd:devhost-server" in line and "w" in line.split()[1]]


def test_the_admin_socket_is_its_owners_alone(tmp_path: Path) -> None:
    gateway = EchoGateway(admin={"bind": f"unix:{tmp_path}/admin.sock"})
    try:
        gateway.launch()
        wait_until(lambda: accepts(gateway.port), 5)
        assert (tmp_path / "admin.sock").stat().st_mode & 0o777 == 0o600
    finally:
        gateway.kill()
        gateway.discard()


# -- workers -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one core, affinity makes no difference")
def test_auto_is_one_worker_a_core_that_may_be_used() -> None:
    core = min(os.sched_getaffinity(0))
    with EchoGateway(workers="auto", prefix=("taskset", "-c", str(core))) as gateway:  # type: ignore[arg-type]
        assert len(gateway.worker_pids()) == 1
    with EchoGateway(workers="auto") as gateway:  # type: ignore[arg-type]
        assert len(gateway.worker_pids()) == len(os.sched_getaffinity(0))


def test_titles_say_what_each_process_is_doing() -> None:
    with EchoGateway(workers=2) as gateway:
        titles = {title.strip() for title in gateway.processes().values()}
        assert {"devhost-server: master", "devhost-server: control"} < titles
        assert f"devhost-server: echo 127.0.0.1:{gateway.echo_port}" in titles
        assert not [title for title in titles if "gunicorn" in title]
        workers = {f"devhost-server: worker {slot} ready 0 connections" for slot in (0, 1)}
        wait_until(lambda: workers <= {title.strip() for title in gateway.processes().values()}, 2)
        with RawClient(gateway.port) as client:
            client.send(request())
            assert client.read_response().status == 200
            wait_until(lambda: any("ready 1 connections" in title for title in gateway.processes().values()), 3)


def test_a_worker_holds_no_socket_of_the_other_processes() -> None:
    with EchoGateway() as gateway:
        (worker,) = gateway.worker_pids()
        (control,) = gateway.titled("control")
        (echo,) = gateway.titled("echo")
        assert _listening(worker) == {gateway.port}
        assert _listening(control) == {gateway.admin_port}
        assert _listening(echo) == {gateway.echo_port}
        assert descriptors(worker) < 25


def _listening(pid: int) -> set[int]:
    """The TCP ports that a process has listening sockets for."""
    inodes = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


# -- what the environment says to others -------------------------------------------------------------------------------

FOREIGN = {
    "WEB_CONCURRENCY": "5",
    "PORT": "1",
    "FORWARDED_ALLOW_IPS": "*",
    "GUNICORN_CMD_ARGS": "--bind 0.0.0.0:1 --workers 7",
    "SENDFILE": "perhaps",
    "GUNICORN_PID": "1",
    "GUNICORN_FD": "0",
    "LISTEN_FDS": "1",
    "LISTEN_PID": "1",
    "UVICORN_PORT": "1",
}


@pytest.mark.parametrize("garbage", [False, True], ids=["meant for gunicorn", "nonsense"])
def test_what_gunicorn_and_uvicorn_read_has_no_effect(garbage: bool) -> None:
    environment = dict.fromkeys(FOREIGN, "nonsense") if garbage else FOREIGN
    with EchoGateway(environment=environment) as gateway:
        assert len(gateway.worker_pids()) == 1
        with RawClient(gateway.port) as client:
            client.send(request(headers={"X-Forwarded-For": "198.51.100.7"}))
            body = client.read_response().body
        assert b"198.51.100.7" not in body
        assert gateway.reload()[0] == 200
        assert gateway.ready()


def test_the_environments_variables_still_reach_the_configuration() -> None:
    gateway = EchoGateway(environment={"PORT": "9999", "WEB_CONCURRENCY": "3"})
    gateway.settings["routes"]["said"] = {
        "host": "said.test",
        "respond": {"status": 200, "body": "${PORT} ${WEB_CONCURRENCY}!"},
    }
    gateway.write_config(gateway.settings)
    with gateway:
        assert gateway.get(host="said.test").body == b"9999 3!"
        assert gateway.reload()[0] == 200
        assert gateway.get(host="said.test").body == b"9999 3!"


@pytest.fixture
def trap() -> Iterator[ScriptedUpstream]:
    """A proxy that nothing should be sent to."""
    server = ScriptedUpstream()
    yield server
    server.close()


def test_proxy_variables_have_no_effect_on_traffic_or_commands(trap: ScriptedUpstream) -> None:
    names = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    environment = dict.fromkeys(names, trap.url) | {"NO_PROXY": "", "no_proxy": ""}
    with EchoGateway(environment=environment) as gateway:
        assert gateway.get().status == 200
        assert gateway.run("status").returncode == 0
    assert trap.connections == []


@pytest.mark.parametrize("closed", ["<&- >&-", "2>&-", "<&- >&- 2>&-"], ids=["in and out", "err", "all"])
def test_closed_standard_streams_change_nothing(closed: str) -> None:
    with EchoGateway(prefix=("sh", "-c", f'exec "$0" "$@" {closed}'), log={"access": "stdout"}) as gateway:
        assert gateway.get().status == 200
        assert gateway.reload()[0] == 200
        for pid in gateway.processes():
            sockets = [os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2)]
            assert not any(link.startswith("socket:") for link in sockets)
        gateway.term()
        assert gateway.wait(5) == 0
        if "2>" not in closed:
            assert gateway.receipt == (0, 0, 0)
            assert "Assertion" not in gateway.stderr()


# -- a start that is called off ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("the interpreter", signal.SIGTERM),
        ("the imports", signal.SIGTERM),
        ("the imports", signal.SIGINT),
        ("the first process", signal.SIGTERM),
        ("the last worker", signal.SIGTERM),
        ("the last worker", signal.SIGINT),
    ],
)
def test_a_start_that_is_called_off_leaves_nothing(moment: str, number: int) -> None:
    gateway = EchoGateway(workers=4)
    try:
        gateway.launch()
        if moment == "the imports":
            wait_until(lambda: _mapped(gateway.pid, "uvloop"), 5, "the last of the imports, behind the configuration")
        elif moment == "the first process":
            wait_until(lambda: len(gateway.processes()) > 1, 5)
        elif moment == "the last worker":
            wait_until(lambda: len(gateway.processes()) == 7, 5)
        began = time.monotonic()
        gateway.term(number)
        code = gateway.wait(5)
        assert seconds_since(began) < patient(1.2)
        early = moment in {"the interpreter", "the imports"}
        assert code in ({0, -number, 1 if number == signal.SIGINT else 0} if early else {0})
        wait_until(lambda: not gateway.processes(), 1, "no process being left")
        assert not accepts(gateway.port)
        if moment != "the interpreter":  # which shows where it was interrupted, before any of our code has run
            assert not gateway.complaints(), gateway.stderr()
        if not early:
            assert not gateway.messages("error")
    finally:
        gateway.kill()
        gateway.discard()


def _mapped(pid: int, name: str) -> bool:
    return name in Path(f"/proc/{pid}/maps").read_text()


# -- what systemd hears ------------------------------------------------------------------------------------------------


def test_the_supervisor_hears_ready_reloading_and_stopping(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        gateway = EchoGateway(workers=2, environment=supervisor.environment)
        try:
            gateway.launch()
            wait_until(lambda: supervisor.has("READY"), 5)
            assert accepts(gateway.port)
            assert gateway.status()["state"] == "running"
            assert [worker["state"] for worker in gateway.status()["workers"]] == ["ready", "ready"]
            assert supervisor.states()[0]["MAINPID"] == str(gateway.pid)
            assert [message.get("READY") for message in supervisor.states()] == ["1"]

            assert gateway.reload()[0] == 200
            wait_until(lambda: len(supervisor.states()) >= 3, 2)
            reloading, ready = supervisor.states()[1:3]
            assert reloading["RELOADING"] == "1"
            assert 0 < time.monotonic_ns() // 1000 - int(reloading["MONOTONIC_USEC"]) < 5_000_000
            assert ready["READY"] == "1"

            gateway.config_file.write_text("nonsense: true\n")
            assert gateway.reload()[0] == 422
            wait_until(lambda: len(supervisor.states()) >= 5, 2)
            assert ("RELOADING" in supervisor.states()[3], supervisor.states()[4]["READY"]) == (True, "1")

            gateway.term()
            wait_until(lambda: supervisor.has("STOPPING"), 2)
            assert gateway.wait(5) == 0
            assert len(supervisor.states()) == 6
        finally:
            gateway.kill()
            gateway.discard()


def test_the_supervisor_hears_nothing_before_the_workers_are_ready(tmp_path: Path) -> None:
    """A reload during the start is carried out and does not make it look ready too early."""
    with Supervisor(tmp_path) as supervisor:
        gateway = EchoGateway(workers=4, environment=supervisor.environment)
        try:
            gateway.launch()
            wait_until(lambda: len(gateway.processes()) > 1, 5)
            gateway.term(signal.SIGHUP)
            wait_until(lambda: supervisor.has("READY"), 5)
            first = next(message for message in supervisor.states() if "READY" in message)
            assert "MAINPID" in first, "the first READY is that of the start"
            assert [worker["state"] for worker in gateway.status()["workers"]] == ["ready"] * 4
            gateway.term()
            assert gateway.wait(5) == 0
        finally:
            gateway.kill()
            gateway.discard()


def test_the_watchdog_hears_twice_in_its_time_that_the_gateway_lives(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        environment = supervisor.environment | {"WATCHDOG_USEC": "1000000"}
        with EchoGateway(environment=environment):
            began = time.monotonic()
            count = len(supervisor.states())
            wait_until(lambda: len(supervisor.states()) >= count + 6, 20)
            assert supervisor.states()[-1] == {"WATCHDOG": "1"}
            assert 2 < seconds_since(began) < 12  # six halves of a second, on a machine that may be busy


@pytest.mark.parametrize("asked", [{}, {"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}])
def test_a_watchdog_that_is_not_asked_for_hears_nothing(tmp_path: Path, asked: dict[str, str]) -> None:
    with Supervisor(tmp_path) as supervisor:
        with EchoGateway(environment=supervisor.environment | asked) as gateway:
            assert gateway.reload()[0] == 200
        assert supervisor.has("STOPPING")
        assert not supervisor.has("WATCHDOG")


def test_a_start_that_fails_is_never_ready(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    with Supervisor(tmp_path) as supervisor, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        file.write_text(config(taken.getsockname()[1]))
        assert_refused(run_to_end("-c", str(file), "run", **supervisor.environment), "in use")
        assert not supervisor.has("READY")
