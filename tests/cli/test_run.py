"""``run`` refuses a bad configuration; what it runs is tested in tests/integration."""

from tests.cli.support import run, write


def test_a_bad_configuration_never_starts():
    write("server: {wrokers: 1}")
    for arguments in ((), ("run",), ("--set", "domain=x")):
        assert "server.wrokers" in run(*arguments, code=1).stderr
