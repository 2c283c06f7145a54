"""``drain`` stops the running gateway."""

from tests.cli.support import run


def test_drain(admin):
    assert run("drain", "--admin", admin.address).stdout.startswith("draining: ")
