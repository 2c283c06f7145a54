"""The verbs ``config show``, ``config diff`` and ``config schema``."""

import json
from dataclasses import replace
from typing import Any

import click

from devhost_server.cli.group import Verbs, cli
from devhost_server.cli.options import json_option
from devhost_server.cli.output import print_json
from devhost_server.cli.sources import chosen_sources, exit_with, load_or_exit
from devhost_server.cli.tables import table
from devhost_server.config import ConfigError
from devhost_server.config.hints import suggestion
from devhost_server.config.layers import gather
from devhost_server.config.schema import json_schema
from devhost_server.config.show import differences, flat, in_effect, placer, select, to_yaml
from devhost_server.secrecy import masked


@cli.group(cls=Verbs)
def config() -> None:
    """Show, compare or describe the configuration."""


@config.command()
@click.argument("key", required=False)
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@json_option
def show(key: str | None, *, origin: bool, as_json: bool) -> None:
    """Print the configuration in effect.

    As YAML, defaults included and secrets masked; with a KEY such as server.limits only that part.
    """
    loaded = load_or_exit(chosen_sources())
    shown: Any = masked(in_effect(loaded.tree), loaded.secrets)
    path = tuple(key.split(".")) if key else ()
    if key:
        shown = _selected(shown, key)
    place = placer(loaded.origins)
    if as_json and origin:
        rows = ((".".join(map(str, at)), value, place(at)) for at, value in flat(shown, path))
        print_json({name: {"value": value, "origin": where} for name, value, where in rows})
    elif as_json:
        print_json(shown)
    else:
        click.echo(to_yaml(shown, path, place if origin else None), nl=False)


def _selected(shown: Any, key: str) -> Any:
    """Return the part of a configuration that a key names. Raises `UsageError` if there is none."""
    try:
        return select(shown, key)
    except KeyError as error:
        part, known = error.args
        raise click.UsageError(f"there is no key '{key}' in the configuration{suggestion(part, known)}") from None


@config.command()
@click.argument("env1")
@click.argument("env2")
@json_option
def diff(env1: str, env2: str, *, as_json: bool) -> None:
    """Print what differs between environments.

    What is compared is what the files say, before expansion: no variable and no secret need be there.
    """
    sources = chosen_sources()
    if sources.config_files:
        raise click.UsageError("config diff compares the environments of one folder, and -c replaces the folder")
    first, second = (gather(replace(sources, env=env)) for env in (env1, env2))
    if first.problems or second.problems:
        exit_with(ConfigError(tuple(dict.fromkeys((*first.problems, *second.problems)))))
    found = differences(first, second)
    if as_json:
        print_json({key: {env1: left, env2: right} for key, left, right in found})
    elif found:
        click.echo(table(("key", env1, env2), [(key, _short(left), _short(right)) for key, left, right in found]))
    else:
        click.echo(f"{env1} and {env2} do not differ")


def _short(value: Any) -> str:
    """Return a value as text for a person. Unlike in YAML, strings are not quoted, so that expressions can be read."""
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


@config.command()
@json_option
def schema(*, as_json: bool) -> None:
    """Print the JSON Schema, for editors."""
    # It is JSON either way; scripts give --json to every verb that reads.
    print_json(json_schema())
