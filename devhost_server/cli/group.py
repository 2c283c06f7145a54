"""The command group that all verbs are added to."""

import os
from typing import Any, Final

import click

from devhost_server import __version__
from devhost_server.cli.options import global_options

HELP: Final = """\
A team-shared staging gateway: routes hosts and paths to upstreams, and says why when one is down.

Without a command, it runs: in the foreground, logs to stderr, access log to stdout.
"""
EPILOG: Final = """\
Variables: DEVHOST_ENV, DEVHOST_CONFIG_DIR, DEVHOST_TOKEN, DEVHOST_MAX_CONNS, DEVHOST__SECTION__KEY=value for any key,
NO_COLOR.
"""


class Verb(click.Command):
    """A command that takes the global options too."""

    def __init__(self, name: str, *, params: list[click.Parameter] | None = None, **attributes: Any) -> None:
        super().__init__(name, params=[*(params or []), *global_options()], **attributes)


class Verbs(click.Group):
    """A group of verbs that takes the global options too."""

    command_class = Verb

    def __init__(self, name: str, *, params: list[click.Parameter] | None = None, **attributes: Any) -> None:
        super().__init__(name, params=[*(params or []), *global_options()], **attributes)


@click.group(
    cls=Verbs,
    invoke_without_command=True,
    help=HELP,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, prog_name="devhost-server", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run the verb, or the gateway if no verb is given."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    if ctx.invoked_subcommand is None:
        ctx.invoke(cli.commands["run"])
