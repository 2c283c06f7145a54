"""Where configuration is looked for, and how its layers become one tree.

Later wins: packaged defaults (the defaults of the options models) < ``devhost.yaml`` < ``devhost.{env}.yaml`` <
``devhost.local.yaml`` < ``DEVHOST__SECTION__KEY`` variables < ``--set``. Named files (``-c``) replace the three.
Where no folder holds a configuration, the packaged one does: `PACKAGED`, an echo upstream and a route to it.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Final

from devhost_server.config.assignments import environment_layers, max_conns_layer, set_layers
from devhost_server.config.problems import Origin, Problem
from devhost_server.config.reader import ReadError, read
from devhost_server.config.tree import Node, dotted, mapping, merge
from devhost_server.config.tree import Path as KeyPath

PACKAGED: Final = Path(__file__).parent / "defaults"
SYSTEM: Final = Path("/etc/devhost-server")
DEFAULT_ENV: Final = "dev"
LOCAL: Final = "local"
# Far beyond any real configuration (500 routes are 60 KB), and little enough to read in one go.
MAX_FILE_BYTES: Final = 4 * 1024 * 1024

_ENV_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Sources:
    """Everything that decides what the configuration is. Loading the same sources again reads the files anew."""

    env: str
    config_dir: Path | None
    config_files: tuple[Path, ...]
    sets: tuple[str, ...]
    environ: Mapping[str, str] = field(repr=False)
    cwd: Path

    @classmethod
    def from_options(
        cls,
        env: str | None = None,
        config_dir: str | os.PathLike[str] | None = None,
        config_files: Iterable[str | os.PathLike[str]] = (),
        sets: Iterable[str] = (),
        environ: Mapping[str, str] = os.environ,
        cwd: str | os.PathLike[str] | None = None,
    ) -> "Sources":
        """Fill what is not given from `environ`; nothing is read or checked before `load`."""
        folder = config_dir or environ.get("DEVHOST_CONFIG_DIR") or None
        return cls(
            env=env or environ.get("DEVHOST_ENV") or DEFAULT_ENV,
            config_dir=Path(folder) if folder else None,
            config_files=tuple(map(Path, config_files)),
            sets=tuple(sets),
            environ=dict(environ),
            cwd=Path(cwd) if cwd is not None else Path.cwd(),
        )

    def show(self, path: Path) -> str:
        """Write a path as a reader at `cwd` would."""
        path = self.cwd / path
        return str(path.relative_to(self.cwd)) if path.is_relative_to(self.cwd) else str(path)


@dataclass(frozen=True)
class Layers:
    """All layers as one tree, not yet expanded. `folders` has the folder of each file, for relative ``${file:…}``."""

    tree: Node
    files: tuple[Path, ...]
    folders: Mapping[str, Path]
    problems: tuple[Problem, ...]
    is_complete: bool  # False if a layer could not be read: then what is missing may be in it


def gather(sources: Sources) -> Layers:
    """Read and merge every layer; what cannot be read is a problem and counts as empty."""
    problems: list[Problem] = []
    files = _discover(sources, problems)
    read_ones = [(path, _read_file(path, sources.show(path), problems)) for path in files]
    layers = [tree for _, tree in read_ones if tree is not None]
    complete = not problems
    if sources.config_files:
        problems += _defined_twice(layers)
    from_files = reduce(merge, layers, mapping({}, Origin("default")))
    layers = [
        from_files,
        *max_conns_layer(sources.environ, from_files, problems),
        *environment_layers(sources.environ, problems),
        *set_layers(sources.sets, problems),
    ]
    folders = {sources.show(path): path.parent for path in files}
    return Layers(reduce(merge, layers), tuple(files), folders, tuple(problems), complete)


def _defined_twice(layers: Iterable[Node]) -> Iterator[Problem]:
    """Find routes and upstreams that several files define; those who wrote the files may not know of each other.

    The environment's file and the local one are meant to change what is below them; files that are named one by one
    need not be.
    """
    defined: dict[KeyPath, Node] = {}
    for layer in layers:
        for section, kind in (("routes", "route"), ("upstreams", "upstream")):
            entries = layer.get(section)
            for name, entry in entries.children() if entries is not None else ():
                place: KeyPath = (section, name)
                first = defined.pop(place, None)
                override = entry.get("override")
                if first is not None and entry.value is not None and (override is None or override.value is False):
                    said = f"the {kind} {name} is defined in {first.key_at} already"
                    what = "write `override: true` in this one if it is meant to change that one, or rename one"
                    yield Problem.at(entry.key_at, dotted(place), f"{said}: {what}")
                if entry.value is not None:
                    defined[place] = entry


# --- files -----------------------------------------------------------------------------------------------------------


def _discover(sources: Sources, problems: list[Problem]) -> list[Path]:
    if sources.config_files:
        return [sources.cwd / path for path in sources.config_files]
    if not _ENV_NAME.fullmatch(sources.env) or sources.env == LOCAL:
        reason = "is the personal layer of every environment" if sources.env == LOCAL else "is not a name of one"
        problems.append(Problem.of("environment", f"'{sources.env}' {reason}; letters, digits, - and _ are allowed"))
        return []
    found = _folder(sources, problems)
    return [] if found is None else _files_of(found, sources, problems)


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder and what is in it: by the names, so that a link that leads nowhere is not taken for a missing file."""

    path: Path
    names: frozenset[str]

    @classmethod
    def at(cls, path: Path) -> "_Folder | None":
        """Look at a path; None if no folder is there. Raises `OSError` if nobody can tell."""
        try:
            return cls(path, frozenset(os.listdir(path)))
        except (FileNotFoundError, NotADirectoryError):
            if path.is_symlink():
                raise
            return None

    def holds_configuration(self) -> bool:
        return any(name.startswith("devhost") and name.endswith((".yaml", ".yml")) for name in self.names)

    def environments(self) -> list[str]:
        parts = [name.split(".") for name in self.names if name != f"devhost.{LOCAL}.yaml"]
        return sorted(each[1] for each in parts if len(each) == 3 and each[0] == "devhost" and each[2] == "yaml")


def _folder(sources: Sources, problems: list[Problem]) -> _Folder | None:
    named = sources.config_dir
    for path in (sources.cwd / "config", SYSTEM) if named is None else (sources.cwd / named,):
        try:
            folder = _Folder.at(path)
        except OSError as error:
            problems.append(Problem.of(sources.show(path), _unreadable(error)))
            return None
        # A folder named `config` may well be another program's, so only one with our files in it counts.
        if folder is not None and folder.holds_configuration():
            return folder
        if named is not None:
            problems.append(Problem.of(str(named), _no_configuration(folder)))
            return None
    return _Folder.at(PACKAGED)


def _no_configuration(folder: _Folder | None) -> str:
    if folder is None:
        return "there is no such folder; give one with a devhost.yaml"
    return "this folder holds no devhost.yaml or devhost.ENV.yaml"


def _files_of(folder: _Folder, sources: Sources, problems: list[Problem]) -> list[Path]:
    names = ("devhost.yaml", f"devhost.{sources.env}.yaml", f"devhost.{LOCAL}.yaml")
    for name in names:
        other = name.replace(".yaml", ".yml")
        if other in folder.names:
            shown = sources.show(folder.path / other)
            problems.append(Problem.of(shown, f"this file would not be read; rename it to {name}"))
    if sources.env != DEFAULT_ENV and names[1] not in folder.names and not problems:
        expected = Path("config") if folder.path == PACKAGED else folder.path
        problems.append(Problem.of(sources.show(expected / names[1]), _missing_environment(folder, sources)))
    return [folder.path / name for name in names if name in folder.names]


def _missing_environment(folder: _Folder, sources: Sources) -> str:
    if folder.path == PACKAGED:
        return (
            f"there is no such file: the environment '{sources.env}' needs a configuration of its own, in ./config or "
            f"{SYSTEM} or the folder that --config-dir names; only '{DEFAULT_ENV}' is packaged"
        )
    known = ", ".join(folder.environments()) or "none"
    return f"there is no such file, and the environment is '{sources.env}'; this folder has {known}"


def _unreadable(error: OSError) -> str:
    return f"cannot be read: {(error.strerror or str(error)).lower()}"


def _read_file(path: Path, shown: str, problems: list[Problem]) -> Node | None:
    try:
        tree = _parse_file(path, shown)
    except ReadError as error:
        problems.append(Problem.at(error.at, "", error.message))
        return None
    return tree if tree.value is not None else None


def _parse_file(path: Path, shown: str) -> Node:
    start = Origin(shown)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ReadError(start, _unreadable(error)) from None
    except UnicodeDecodeError as error:
        raise ReadError(start, f"not UTF-8 text at byte {error.start}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ReadError(start, f"longer than {MAX_FILE_BYTES >> 20}MiB, which no configuration needs")
    tree = read(text, lambda line, column: Origin(shown, line, column))
    if tree.value is not None and not isinstance(tree.value, dict):
        raise ReadError(tree.at, "the file is not a mapping; begin with a key such as routes:")
    return tree
