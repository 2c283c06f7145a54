"""The command line: in this process where that is the same, and as a process where it is not."""

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from devhost_server.cli import cli


def run(*arguments, code=0, **more):
    result = CliRunner().invoke(cli, arguments, prog_name="devhost-server", **more)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def write(text, name="devhost.yaml"):
    path = Path("config") / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def process(*arguments, **environ):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("DEVHOST")}
    command = [sys.executable, "-m", "devhost_server", *arguments]
    return subprocess.run(command, env=clean | environ, capture_output=True, text=True, timeout=30, check=False)


def unread(*arguments):
    """Run a command whose output nobody reads; return what is on stderr, and the exit code of the whole line."""
    command = f'set -o pipefail; "$0" -m devhost_server {" ".join(arguments)} | true'
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        closed = [sys.executable, "-m", "devhost_server", *arguments]
        first = subprocess.run(closed, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    line = ["bash", "-c", command, sys.executable]
    second = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
    assert (first.returncode, first.stderr) == (second.returncode, second.stderr)
    return first.stderr, first.returncode
