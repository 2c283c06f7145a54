"""The module is the command, and loads only what it needs."""

import subprocess
import sys

from tests.cli.support import process


def test_the_module_is_the_command():
    done = process("check")
    assert (done.returncode, done.stderr) == (0, "")
    done = process("--env", "prod", "check")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_checking_loads_nothing_that_serves():
    heavy = "asyncio", "gunicorn", "uvicorn", "uvloop", "httpx", "starlette", "prometheus_client", "ssl"
    code = f"import sys, devhost_server.cli; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"
