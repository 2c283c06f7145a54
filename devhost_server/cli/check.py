"""The verb ``check``: whether the configuration is right, and which routes it has."""

import sys
from typing import Any

import click

from devhost_server.cli.group import Verb, cli
from devhost_server.cli.options import json_option
from devhost_server.cli.output import counted, print_json, terminal_width
from devhost_server.cli.routes_table import listening, routes_table
from devhost_server.cli.sources import chosen_sources, exit_with
from devhost_server.config import ConfigError, Loaded, Settings, load
from devhost_server.config.problems import Problem
from devhost_server.processes.identity import Identity, IdentityError


@cli.command()
@json_option
def check(*, as_json: bool) -> None:
    """Check the configuration.

    Prints the routes, or everything that is wrong, each with its place. The user that `server.user` names has to be on
    this machine.
    """
    sources = chosen_sources()
    try:
        loaded = load(sources)
        _expect_user(loaded)
    except ConfigError as error:
        if not as_json:
            exit_with(error)
        print_json({"ok": False, "errors": [_problem_as_json(problem) for problem in error.problems]})
        sys.exit(1)
    settings, routes = loaded.settings, _routes_as_json(loaded.settings)
    if as_json:
        print_json({"ok": True, "env": settings.env, "bind": settings.server.bind, "routes": routes})
        return
    click.echo(routes_table(routes, terminal_width()))
    files = ", ".join(sources.show(path) for path in loaded.files) or "no file"
    click.echo(f"\n{listening(settings.server.bind)}")
    click.echo(f"{counted(len(routes), 'route')}, environment {settings.env}, from {files}")


# A hidden alias.
cli.add_command(Verb("validate", callback=check.callback, params=check.params[:1], help=check.help, hidden=True))


def _expect_user(loaded: Loaded) -> None:
    """Check that `server.user` is on this machine, which a start as root needs. Raises `ConfigError`."""
    user = loaded.settings.server.user
    try:
        if user is not None:
            Identity.find(user)
    except IdentityError as error:
        raise ConfigError((Problem.at(loaded.origins["server.user"], "server.user", str(error)),)) from None


def _problem_as_json(problem: Problem) -> dict[str, Any]:
    names = ("file", "line", "column", "key", "message")
    return {name: getattr(problem, name) for name in names}


def _routes_as_json(settings: Settings) -> list[dict[str, Any]]:
    """Return the routes of a configuration in the shape of ``GET /api/routes``."""
    shown = settings.shown()
    return [
        {
            **shown["routes"][name],
            "targets": shown["upstreams"][route.upstream]["targets"] if route.upstream else [],
            "timeouts": shown["routes"][name]["timeouts"]
            or (shown["upstreams"][route.upstream]["timeouts"] if route.upstream else None),
        }
        for name, route in settings.routes.items()
    ]
