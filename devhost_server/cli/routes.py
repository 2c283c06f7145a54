"""The verb ``routes``: the routes of the running gateway."""

import click

from devhost_server.admin.shapes import Routes
from devhost_server.cli.group import cli
from devhost_server.cli.options import json_option
from devhost_server.cli.output import counted, print_json, terminal_width
from devhost_server.cli.routes_table import listening, routes_table
from devhost_server.cli.running_gateway import ask


@cli.command()
@json_option
def routes(*, as_json: bool) -> None:
    """Print the routes of the running gateway."""
    _, answer = ask("GET", "/api/routes", Routes)
    if as_json:
        print_json(answer)
        return
    click.echo(routes_table(answer["routes"], terminal_width()))
    click.echo(f"\n{listening(answer['bind'])}" if answer.get("bind") else "")
    click.echo(f"{counted(len(answer['routes']), 'route')}, generation {answer['generation']}")
