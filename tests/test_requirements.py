"""The locked versions: complete, hashed, and within the ranges that pyproject.toml gives to those who embed."""

from __future__ import annotations

import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
FILES = ("run", "build", "dev")
_PIN = re.compile(r"^([a-z0-9._-]+)==(\S+)(?: ; [^\\]+)?(.*(?:\n    .*)*)", re.MULTILINE)


@cache
def pins(file: str) -> dict[str, str]:
    """Versions by name of one file."""
    return {name: version for name, version, _ in _PIN.findall((ROOT / "requirements" / f"{file}.txt").read_text())}


def named() -> dict[str, list[Requirement]]:
    """What pyproject.toml asks for, by the file that has to lock it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    everything = [each for group in groups.values() for each in group if isinstance(each, str)]
    run = project["project"]["dependencies"]
    asked = {"run": run, "build": groups["build"], "dev": run + everything}
    return {file: [Requirement(each) for each in texts] for file, texts in asked.items()}


@pytest.mark.parametrize("file", FILES)
def test_everything_named_is_locked_within_its_range(file: str) -> None:
    for requirement in named()[file]:
        version = pins(file).get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not locked: run .ci/lock"
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} but locked {version}"


@pytest.mark.parametrize("file", FILES)
def test_every_locked_version_has_its_hashes(file: str) -> None:
    text = (ROOT / "requirements" / f"{file}.txt").read_text()
    found = _PIN.findall(text)
    assert len(found) == len(re.findall(r"^[a-z]", text, re.MULTILINE)), "a line that is no pin"
    assert [name for name, _, hashes in found if "--hash=sha256:" not in hashes] == []
    assert "://" not in text, "an index or a direct address"


@pytest.mark.parametrize("part", ["run", "build"])
def test_the_parts_lock_what_the_whole_does(part: str) -> None:
    assert pins(part).items() <= pins("dev").items()


@pytest.mark.parametrize("script", ["run", "lock", "newest", "compiled"])
def test_the_scripts_parse_and_can_be_run(script: str) -> None:
    path = ROOT / ".ci" / script
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    assert path.stat().st_mode & 0o111 == 0o111
