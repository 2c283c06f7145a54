"""The configuration that the global options choose, and the exit when it is wrong."""

import os
from typing import Any, NoReturn

import click

from devhost_server.cli.options import given
from devhost_server.cli.output import counted, fail
from devhost_server.config import ConfigError, Loaded, Sources, load


def chosen_sources() -> Sources:
    """Return where the configuration is read from, by the global options and the environment.

    Exits if a relative path was given and the working directory is gone.
    """
    options = given()
    named = (options.get("env"), options.get("config_dir"), options.get("config", ()), options.get("set", ()))
    try:
        return Sources.from_options(*named)
    except FileNotFoundError:
        if not all(map(os.path.isabs, _places(options))):
            fail("the working directory is gone; change to one that is there, or name the folder by its whole path")
        os.chdir("/")  # nothing is looked for from there, and libraries ask where they are
        return Sources.from_options(*named)


def _places(options: dict[str, Any]) -> list[str]:
    return options.get("config") or [options.get("config_dir") or os.environ.get("DEVHOST_CONFIG_DIR") or ""]


def load_or_exit(sources: Sources) -> Loaded:
    """Load the configuration. Prints every problem and exits if there are any."""
    try:
        return load(sources)
    except ConfigError as error:
        exit_with(error)


def exit_with(error: ConfigError) -> NoReturn:
    """Print every problem of the configuration and their number to stderr, and exit with code 1."""
    summary = f"{counted(len(error.problems), 'mistake')} in the configuration"
    fail(*map(str, error.problems), click.style(summary, fg="red", bold=True))
