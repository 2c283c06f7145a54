"""Verbs of later versions, which are refused with what to do instead."""

import click

from devhost_server.cli.group import cli


def _add_unbuilt(name: str, instead: str) -> None:
    """Add a hidden verb that takes any arguments and is refused as wrong usage."""

    @click.argument("rest", nargs=-1, type=click.UNPROCESSED)
    def refuse(rest: tuple[str, ...]) -> None:
        raise click.UsageError(f"`{name}` is not built in this version; {instead}")

    settings = {"ignore_unknown_options": True, "help_option_names": []}
    cli.command(name, cls=click.Command, hidden=True, context_settings=settings)(refuse)


_add_unbuilt("explain", "`check` prints the routes, of which the most specific wins")
_add_unbuilt("route", "write routes into the configuration and `devhost-server reload`")
