"""Output that cannot be written is an error; output that nobody reads is none."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.support import unread, write


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "arguments",
    [("check",), ("check", "--json"), ("config", "show"), ("config", "schema"), ("--help",), ("--version",)],
)
def test_a_full_disk_is_said(arguments):
    command = [sys.executable, "-m", "devhost_server", *arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (1, "the output cannot be written: no space left on device\n")
        assert subprocess.run(command, stdout=full, stderr=full, timeout=30, check=False).returncode == 1


def test_errors_that_cannot_be_written_are_errors_still():
    with Path("/dev/full").open("w") as full:
        for arguments in (("--env", "prod", "check"), ("chekc",), ("status", "--admin", "unix:/nope")):
            command = [sys.executable, "-m", "devhost_server", *arguments]
            assert subprocess.run(command, stderr=full, timeout=30, check=False).returncode in (1, 2)


@pytest.mark.parametrize(
    "arguments", ["config schema", "config show", "config diff a a", "check", "--help", "--version"]
)
def test_a_reader_who_leaves_is_told_nothing(arguments):
    write("", "devhost.a.yaml")
    assert unread(*arguments.split()) == ("", 0)


def test_a_reader_who_leaves_changes_no_verdict():
    write("server: {wrokers: 1}")
    assert unread("check", "--json") == ("", 1)
    assert "server.wrokers" in unread("check")[0]


@pytest.mark.parametrize("verb", ["routes", "routes --json", "status", "status --json", "reload", "drain"])
def test_a_reader_who_leaves_is_no_failure_of_the_gateway(admin, verb):
    assert unread(*verb.split(), "--admin", admin.address) == ("", 0)


def test_a_reload_that_fails_is_one_whoever_reads(admin):
    admin.answers["POST /api/reload"] = (422, {"errors": ["x.yaml:1:1: no"], "detail": "not accepted"})
    assert unread("reload", "--admin", admin.address)[1] == 1
    assert unread("reload", "--json", "--admin", admin.address) == ("", 1)
