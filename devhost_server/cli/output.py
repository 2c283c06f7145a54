"""What several verbs print, and how they fail."""

import json
import shutil
import sys
from typing import Any, NoReturn

import click


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def fail(*lines: str) -> NoReturn:
    """Print lines to stderr and exit with code 1."""
    for line in lines:
        click.echo(line, err=True)
    sys.exit(1)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def terminal_width() -> int | None:
    """Return the width of the terminal in columns, or None if stdout is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
