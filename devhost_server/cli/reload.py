"""The verb ``reload``: let the running gateway read its configuration again."""

import sys
from typing import Final

import click

from devhost_server.admin.shapes import NotReloaded, Reloaded
from devhost_server.cli.group import cli
from devhost_server.cli.options import json_option
from devhost_server.cli.output import print_json
from devhost_server.cli.running_gateway import ask
from devhost_server.units import printable

# How long a reload may take (seconds): it is done when every worker serves it, which a busy machine delays.
RELOAD_TIMEOUT: Final = 60.0


@cli.command()
@json_option
def reload(*, as_json: bool) -> None:
    """Reload the running gateway's configuration.

    Done when every worker serves it. If something is wrong with it, the gateway keeps what it has.
    """
    done, answer = ask("POST", "/api/reload", Reloaded, NotReloaded, RELOAD_TIMEOUT)
    if as_json:
        print_json(answer)
    elif done:
        click.echo(f"reloaded: every worker serves generation {answer['generation']}")
    else:
        for error in answer["errors"]:
            click.echo(printable(error), err=True)
        click.echo("not reloaded: the configuration from before keeps serving", err=True)
    sys.exit(0 if done else 1)
