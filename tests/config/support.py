"""Configurations for tests: written to a folder, loaded with an environment of the test's own."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from devhost_server.config import ConfigError, Loaded, Problem, Sources, load
from devhost_server.config.problems import Origin
from devhost_server.config.reader import read
from devhost_server.config.tree import Node


def sources(
    folder: Path, *, env: str | None = None, sets: tuple[str, ...] = (), environ: Mapping[str, str] | None = None
) -> Sources:
    """Sources at `folder`, where `config/` is looked for, with no variable but those given."""
    return Sources.from_options(env=env, sets=sets, environ=environ or {}, cwd=folder)


def write(folder: Path, text: str, name: str = "devhost.yaml") -> Path:
    path = folder / "config" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(dedent(text), encoding="utf-8")
    return path


def loaded(folder: Path, text: str, *, sets: tuple[str, ...] = (), environ: Mapping[str, str] | None = None) -> Loaded:
    write(folder, text)
    return load(sources(folder, sets=sets, environ=environ))


def problems(
    folder: Path, text: str, *, sets: tuple[str, ...] = (), environ: Mapping[str, str] | None = None
) -> tuple[Problem, ...]:
    """What is wrong with a configuration; fails the test if nothing is."""
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text, sets=sets, environ=environ)
    return caught.value.problems


def problem(folder: Path, text: str, **more: object) -> str:
    """The only thing wrong, as it is printed."""
    found = problems(folder, text, **more)  # type: ignore[arg-type]
    assert len(found) == 1, "\n".join(map(str, found))
    return str(found[0])


def node(text: str) -> Node:
    return read(dedent(text), lambda line, column: Origin("test.yaml", line, column))
