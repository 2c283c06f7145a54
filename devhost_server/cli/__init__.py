"""The command line.

``devhost-server`` alone is ``devhost-server run``. Global options may stand before or after the verb. Verbs that read a
running gateway, or tell it something, do so through its admin listener.

Each verb is a file of its own, named in the list of imports below. Exit codes: 0 done; 1 bad configuration, failed
start or no answer; 2 usage; 3 (of `run`) something was cut.
"""

import sys
from typing import TextIO, cast

# Each of these adds its verb to `cli`.
from devhost_server.cli import (  # noqa: F401
    check,
    config,
    drain,
    reload,
    routes,
    run,
    status,
    unbuilt,
)
from devhost_server.cli.group import cli
from devhost_server.cli.stdout import UNWRITABLE, Stdout, exit_unwritable

__all__ = ["cli", "main"]


def main() -> None:
    """Run the command line."""
    sys.stdout = cast("TextIO", Stdout(sys.stdout))
    try:
        cli(prog_name="devhost-server")
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        exit_unwritable(error)
