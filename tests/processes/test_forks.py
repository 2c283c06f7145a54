"""What is settled before anything else, in interpreters of their own: streams that are closed, and an early Ctrl-C."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SHOW = """
import os, sys
from devhost_server.forks import open_missing_streams
open_missing_streams()
report = [os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)]
report += [stream.fileno() for stream in (sys.stdin, sys.stdout, sys.stderr)]
report += [os.get_inheritable(number) for number in (0, 1, 2)]
print("nobody sees this", file=sys.stdout, flush=True)
print("nor this", file=sys.stderr, flush=True)
open(sys.argv[1], "w").write(repr(report))
"""


@pytest.mark.parametrize(
    "closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"], ids=lambda text: text.replace("&-", "")
)
def test_streams_that_are_closed_lead_nowhere(closed: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    report = tmp_path_factory.mktemp("streams") / "report"
    command = f'exec "$0" -c "$1" "$2" {closed}'
    subprocess.run(
        ["sh", "-c", command, sys.executable, SHOW, report],
        stdin=subprocess.PIPE,
        capture_output=True,
        check=True,
    )
    *links, stdin, stdout, stderr, zero, one, two = eval(report.read_text())
    missing = [sign in closed.split() for sign in ("<&-", ">&-", "2>&-")]
    assert [link == "/dev/null" for link in links] == missing
    assert (stdin, stdout, stderr) == (0, 1, 2)
    assert (zero, one, two) == (True, True, True)


def test_only_what_libraries_need_is_left_of_the_environment() -> None:
    code = "import os; from devhost_server.forks import forget_variables; forget_variables(); print(sorted(os.environ))"
    kept = {"HOME": "/", "LC_ALL": "C", "PATH": "/bin", "PYTHONHASHSEED": "0", "SSL_CERT_FILE": "x", "TZ": "UTC"}
    dropped = {"DEVHOST_ADMIN_TOKEN": "a", "DEVHOST__X": "a", "PORT": "1", "NOTIFY_SOCKET": "a", "DATABASE_URL": "a"}
    environment = {**kept, **dropped, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert eval(done.stdout) == sorted({*kept, "PYTHONPATH"})


# Runs before the program: a Ctrl-C comes in the middle of its first import that takes a while.
INTERRUPT = """
import os, signal, sys

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "devhost_server.cli":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize(
    "entry",
    [("-m", "devhost_server"), ("-c", "from devhost_server.__main__ import main; main()")],
    ids=["-m", "script"],
)
def test_an_early_interrupt_shows_no_traceback(entry: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([sys.executable, *entry], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_an_interrupt_that_is_ignored_stays_ignored() -> None:
    """As a shell starts what it puts into the background."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.argv[1:] = ['--version'];"
        "import atexit; atexit.register(lambda: print(signal.getsignal(signal.SIGINT).name));"
        "from devhost_server.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nSIG_IGN\n")
