"""Loading, from beginning to end."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from devhost_server.admin.options import AdminOptions
from devhost_server.config.layers import Layers, Sources, gather
from devhost_server.config.models import Settings
from devhost_server.config.problems import ConfigError, Origin, Problem
from devhost_server.config.resolve import cross_checked, resolved
from devhost_server.config.tree import Node, dotted, leaves, plain
from devhost_server.config.tree import Path as KeyPath
from devhost_server.config.unbuilt import without_unbuilt
from devhost_server.config.validate import expanded, redacted, secrets_in, validated
from devhost_server.units import printable


@dataclass(frozen=True)
class Loaded:
    """A configuration that is good.

    `tree` is what the layers say, merged and expanded, without defaults and with secrets in it; `secrets` are the paths
    of those that came out of files. `origins` has the place of each of its values, by dotted key; what is not there is
    a default. `files` are those that were read.
    """

    settings: Settings
    origins: Mapping[str, Origin]
    tree: Mapping[str, Any]
    secrets: frozenset[KeyPath]
    files: tuple[Path, ...]


def load(sources: Sources) -> Loaded:
    """Read, merge, expand, validate and resolve. Raises `ConfigError` with every problem of every layer."""
    layers = gather(sources)
    problems = list(layers.problems)
    tree = _expanded(layers, sources, problems)
    result = validated(without_unbuilt(tree, problems), problems, complete=layers.is_complete)
    if layers.is_complete:
        problems += cross_checked(result)
    if problems:
        raise ConfigError(_in_reading_order(problems, layers.files, sources, secrets_in(result.tree)))
    secrets = frozenset(path for path, node in leaves(result.tree) if node.at.secret)
    return Loaded(
        settings=resolved(result.document, sources.env, secrets),
        origins={dotted(path): node.at for path, node in leaves(result.tree) if path},
        tree=plain(result.tree),
        secrets=secrets,
        files=layers.files,
    )


def load_admin(sources: Sources) -> AdminOptions:
    """Load the admin section alone, so that a running gateway can be found beside a configuration that is broken.

    Raises `ConfigError` with the problems of that section.
    """
    layers = gather(sources)
    problems: list[Problem] = []
    section = layers.tree.get("admin")
    at = layers.tree.at
    alone = Node({"admin": section} if section is not None else {}, at, at)
    result = validated(_expanded(replace(layers, tree=alone), sources, problems), problems)
    if problems:
        raise ConfigError(_in_reading_order(problems, layers.files, sources, secrets_in(result.tree)))
    return result.document.admin


def _expanded(layers: Layers, sources: Sources, problems: list[Problem]) -> Node:
    return expanded(layers.tree, sources.environ, layers.folders, sources.cwd, problems)


def _in_reading_order(
    problems: list[Problem], files: tuple[Path, ...], sources: Sources, secrets: list[str]
) -> tuple[Problem, ...]:
    places = {sources.show(path): index for index, path in enumerate(files)}

    def position(problem: Problem) -> tuple[int, int, int]:
        return places.get(problem.file, len(places)), problem.line or 0, problem.column or 0

    safe = [
        replace(each, key=printable(each.key), message=printable(redacted(each.message, secrets))) for each in problems
    ]
    return tuple(dict.fromkeys(sorted(safe, key=position)))
