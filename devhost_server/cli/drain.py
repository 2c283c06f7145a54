"""The verb ``drain``: stop the running gateway gracefully."""

import click

from devhost_server.admin.shapes import Draining
from devhost_server.cli.group import cli
from devhost_server.cli.options import json_option
from devhost_server.cli.output import print_json
from devhost_server.cli.running_gateway import ask


@cli.command()
@json_option
def drain(*, as_json: bool) -> None:
    """Stop the running gateway gracefully.

    It finishes what is in flight, for as long as server.drain allows, and then ends.
    """
    _, answer = ask("POST", "/api/drain", Draining)
    if as_json:
        print_json(answer)
    else:
        click.echo("draining: no new work is taken once drain.delay has passed; watch with `devhost-server status`")
