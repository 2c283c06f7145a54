"""Started as root, with and without `server.user`."""

import os
import pwd
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.helpers import EchoGateway, replaced, run_to_end
from tests.support import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
NOBODY = pwd.getpwnam("nobody")


def ids(pid: int) -> dict[str, list[str]]:
    """What /proc says of a process's identity."""
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.split() for name, _, value in lines}


def assert_is_nobody(pid: int) -> None:
    status = ids(pid)
    assert status["Uid"] == [str(NOBODY.pw_uid)] * 4, pid
    assert status["Gid"] == [str(NOBODY.pw_gid)] * 4
    assert "0" not in status["Groups"]
    assert status["NoNewPrivs"] == ["1"]
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[kind][0], 16) == 0, kind


@pytest.fixture
def gateway() -> Iterator[EchoGateway]:
    """A gateway of two workers that are nobody, and so is who owns the folder of the access log."""
    with tempfile.TemporaryDirectory(prefix="nobodys-") as name:
        Path(name).chmod(0o755)
        os.chown(name, NOBODY.pw_uid, NOBODY.pw_gid)
        made = EchoGateway(workers=2, server={"user": "nobody"}, log={"access": f"{name}/access.log"})
        made.access_file = Path(name) / "access.log"
        with made:
            yield made


def test_all_but_the_master_are_the_user(gateway: EchoGateway) -> None:
    others = [pid for pid in gateway.processes() if pid != gateway.pid]
    assert len(others) == 4
    for pid in others:
        assert_is_nobody(pid)
    assert ids(gateway.pid)["Uid"][0] == "0"
    assert gateway.get().status == 200
    metrics = gateway.metrics()
    assert metrics.value("devhost_worker_open_fds") > 5, "one may look at what the others of the user have open"
    assert not [line for line in gateway.messages("warning") if "root" in line]


def test_those_that_take_their_places_are_too(gateway: EchoGateway) -> None:
    dead = gateway.worker_pids()[0]
    os.kill(dead, signal.SIGKILL)
    replaced(gateway, dead, 2)
    (control,) = gateway.titled(": control")
    os.kill(control, signal.SIGKILL)
    wait_until(lambda: gateway.titled(": control") not in ([], [control]), 5)
    for pid in (*gateway.worker_pids(), *gateway.titled(": control")):
        assert_is_nobody(pid)


def test_it_reloads_drains_and_follows_rotations(gateway: EchoGateway) -> None:
    assert gateway.reload()[0] == 200
    assert gateway.get("/before").status < 500
    gateway.access_entry(target="/before")
    rotated = gateway.access_file.with_suffix(".1")
    gateway.access_file.rename(rotated)
    gateway.term(signal.SIGUSR1)

    def follows() -> bool:
        gateway.get("/after")
        return "/after" in (gateway.access_file.read_text() if gateway.access_file.exists() else "")

    wait_until(follows, 5)
    assert gateway.access_file.stat().st_uid == NOBODY.pw_uid
    gateway.settings["server"]["user"] = None
    gateway.write_config(gateway.settings)
    status, body = gateway.reload()
    assert (status, b"server.user: cannot change while running" in body) == (422, True)
    assert gateway.admin("POST", "/api/drain")[0] == 202
    assert gateway.wait(15) == 0


def test_workers_do_not_outlive_a_master_that_is_killed(gateway: EchoGateway) -> None:
    gateway.exit_codes = (-signal.SIGKILL,)
    os.kill(gateway.pid, signal.SIGKILL)
    gateway.wait(5)
    wait_until(lambda: not gateway.processes(), 5)


def test_a_log_where_only_root_may_write_is_opened_by_root(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    made = EchoGateway(server={"user": "nobody:nogroup"}, log={"access": str(tmp_path / "access.log")})
    made.access_file = tmp_path / "access.log"
    with made as gateway:
        assert gateway.get("/logged").status < 500
        gateway.access_entry(target="/logged")
        assert any("nobody may not open" in line for line in gateway.messages("warning"))
        dead = gateway.worker_pids()[0]
        os.kill(dead, signal.SIGKILL)
        replaced(gateway, dead, 1)
        assert gateway.get("/again").status < 500
        gateway.access_entry(target="/again")


def test_staying_root_is_said_once() -> None:
    with EchoGateway(workers=2) as gateway:
        assert len([line for line in gateway.messages("info") if line.startswith("running as root")]) == 1


@pytest.mark.parametrize("user", ["no-such-user", "nobody:no-such-group", "4000000000"])
def test_a_user_that_is_not_there_ends_the_start(tmp_path: Path, user: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(f"server: {{bind: '127.0.0.1:0', user: '{user}'}}\nadmin: {{bind: null}}\nroutes: {{a: 1}}\n")
    ended = run_to_end("-c", str(file), "run")
    assert (ended.code, len(ended.lines)) == (1, 1), ended
    assert "server.user: " in ended.stderr


def test_who_is_not_root_cannot_become_another() -> None:
    code = """
        import os
        from devhost_server.processes import start
        os.setresuid(1, 1, 1)
        print(start._identity("nobody"), start._identity("1:1"), start._identity(None))
        start._say_who_runs("nobody")
        start._say_who_runs(None)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout == "None None None\n"
    assert done.stderr == "server.user is ignored: only what was started as root can become nobody\n"
