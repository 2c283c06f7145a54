"""What the pages say is there: commands, links, names, keys, flags, and the parts that are made from the code."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest

import devhost_server
from devhost_server.cli import cli
from devhost_server.config.models import Document
from devhost_server.failures import FLAGS
from devhost_server.observe.metrics import CATALOGUE

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "deploy").glob("*.md"),
        *(ROOT / "loadtests").glob("*.md"),
        *(ROOT / "tests").rglob("*.md"),
    ]
)
NAMED = [ROOT / "docs" / f"{name}.md" for name in ("life-of-a-request", "architecture", "operations")]
CI = (ROOT / ".ci" / "run").read_text()


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


# --- the two commands ------------------------------------------------------------------------------------------------


def commands() -> list[str]:
    return [block.strip() for block in re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)]


def test_the_readme_begins_with_two_commands_of_one_line_each() -> None:
    assert len(commands()) == 2
    assert all("\n" not in command for command in commands())
    assert README.index(commands()[1]) < 1500


@pytest.mark.parametrize("command", commands(), ids=["run", "test"])
def test_a_command_needs_nothing_but_python_and_what_it_installs(command: str) -> None:
    assert subprocess.run(["bash", "-n", "-c", command], check=False).returncode == 0
    words = {step.split()[0] for step in command.split(" && ")}
    assert words <= {"python3", ".venv/bin/pip", ".venv/bin/devhost-server", ".venv/bin/pytest"}
    assert command.endswith((".venv/bin/devhost-server", ".venv/bin/pytest -n 2"))
    project = pyproject()
    assert project["project"]["scripts"] == {"devhost-server": "devhost_server.__main__:main"}
    assert all((ROOT / file).is_file() for file in re.findall(r"-r (\S+)", command))


def test_ci_runs_the_command_of_the_readme() -> None:
    found = re.search(r"sed -n '([^']*)' README\.md", CI)
    assert found is not None
    taken = subprocess.run(["sed", "-n", found[1], "README.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert taken.stdout.strip() == commands()[1]


def test_ci_is_a_script_that_parses() -> None:
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=False).returncode == 0
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111 == 0o111


# --- links -----------------------------------------------------------------------------------------------------------


@cache
def anchors(page: Path) -> frozenset[str]:
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def without_code(text: str) -> str:
    return re.sub(r"^( *)(```|~~~).*?^\1\2", "", text, flags=re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[str]:
    text = without_code(page.read_text())
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


def test_every_page_is_found_from_the_readme() -> None:
    found = {(ROOT / link.partition("#")[0]).resolve() for link in links(ROOT / "README.md")}
    assert {relative(page) for page in (ROOT / "docs").glob("*.md") if page not in found} == set()


def test_pictures_can_be_read_in_the_dark() -> None:
    pictures = list((ROOT / "docs" / "pictures").glob("*.svg"))
    assert pictures
    for picture in pictures:
        drawing = ET.fromstring(picture.read_text())
        assert drawing.find("{http://www.w3.org/2000/svg}title") is not None, picture
        assert "prefers-color-scheme: dark" in picture.read_text(), picture


def test_nobodys_workplace_is_named() -> None:
    # Spelt so that this file does not hold what it looks for.
    place = re.compile(r"/(?:work|root)/" + r"|/tmp/" + r"helpers")
    folders = ("config", "deploy", "devhost_server", "docs", "loadtests", "tests", ".ci")
    texts = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    kinds = {".py", ".md", ".yaml", ".yml", ".svg", ".service", ".json", ".http", ""}
    for path in [*ROOT.glob("*.md"), ROOT / "pyproject.toml", *texts]:
        if path.suffix in kinds and "__pycache__" not in path.parts:
            assert not place.search(path.read_text(errors="replace")), path


# --- what is made from the code --------------------------------------------------------------------------------------


def test_made_parts_are_current() -> None:
    spec = importlib.util.spec_from_file_location("render", ROOT / "docs" / "render.py")
    assert spec is not None
    assert spec.loader is not None
    render = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(render)
    stale = [relative(page) for page in render.pages() if render.rendered(page.read_text()) != page.read_text()]
    assert stale == [], "run python docs/render.py"


def test_every_part_has_its_page() -> None:
    made = {name for page in PAGES for name in re.findall(r"<!-- made: ([a-z-]+) -->", page.read_text())}
    source = (ROOT / "docs" / "render.py").read_text()
    assert made == set(re.findall(r'^    "([a-z-]+)": [a-z_]+,$', source, re.MULTILINE))


# --- what an operator is told ----------------------------------------------------------------------------------------


def verbs(group: click.Group, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from verbs(command, f"{prefix}{name} ")
        elif not command.hidden or command.help:  # the hidden ones without help are those that are not built
            yield prefix + name


def test_every_verb_is_documented_and_no_other() -> None:
    table = OPERATIONS.partition("## Verbs")[2].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in re.findall(r"^\| `.*$", table, re.MULTILINE)]
    told = {re.sub(r" (\[.*|[A-Z].*)", "", verb) for row in rows for verb in re.findall(r"`([^`]+)`", row)}
    assert told == set(verbs(cli))


def test_every_signal_is_documented() -> None:
    handled = re.findall(r"signal\.SIG(\w+): self", (ROOT / "devhost_server" / "processes" / "master.py").read_text())
    table = OPERATIONS.partition("## Signals")[2].partition("\n## ")[0]
    told = [name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert sorted(told) == sorted(handled)


def test_every_flag_has_its_advice() -> None:
    table = OPERATIONS.partition("## Troubleshooting by flag")[2]
    assert sorted(re.findall(r"^\| `([A-Z]{2})` \|", table, re.MULTILINE)) == sorted(FLAGS)


def test_every_field_of_the_access_log_is_documented() -> None:
    table = OPERATIONS.partition("## Logs")[2].partition("\n## ")[0]
    told = [name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    source = (ROOT / "devhost_server" / "observe" / "access_line.py").read_text()
    assert sorted(told) == sorted(set(re.findall(r"""(?<=[{,'b])"(\w+)":""", source)))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_metrics_that_are_named_are_there(page: Path) -> None:
    known = {metric.name for metric in CATALOGUE} | {"devhost_server"}
    assert set(re.findall(r"\bdevhost_[a-z_]+", page.read_text())) <= known


def test_every_section_of_the_configuration_is_documented() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    for name in Document.model_fields:
        assert re.search(rf"^### `{name}[`.]|^\| `{name}` \|", page, re.MULTILINE), name


def test_every_dependency_has_its_line() -> None:
    project = pyproject()
    groups = [entry for group in project["dependency-groups"].values() for entry in group if isinstance(entry, str)]
    wanted = [*project["project"]["dependencies"], *groups, *project["build-system"]["requires"]]
    names = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in wanted}  # type: ignore[index]
    page = (ROOT / "docs" / "dependencies.md").read_text().partition("## Rejected")[0]
    rows = {row.lower() for row in re.findall(r"^\| ([\w-]+)[ \d.]*\|", page, re.MULTILINE)} - {"package"}
    assert rows == names


def test_the_changelog_begins_with_what_is_not_released() -> None:
    assert re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == "Unreleased"


# --- names of the code -----------------------------------------------------------------------------------------------


@cache
def modules() -> dict[str, Any]:
    names = [info.name for info in pkgutil.walk_packages(devhost_server.__path__, "devhost_server.")]
    return {name: importlib.import_module(name) for name in names if not name.endswith("__main__")}


def has(holder: Any, path: list[str]) -> bool:
    for name in path:
        if name not in getattr(holder, "__slots__", ()) and not hasattr(holder, name):
            return False
        holder = getattr(holder, name, None)
    return True


def is_name(name: str) -> bool:
    """Whether a class, function or member of that name is there, alone or behind the name of its module or class."""
    first, *rest = name.split(".")
    holders = [module for full, module in modules().items() if full.rpartition(".")[2] == first]
    holders += [getattr(module, first) for module in modules().values() if hasattr(module, first)]
    return any(has(holder, rest) for holder in holders)


def is_key(key: str) -> bool:
    """Whether a configuration key is there, from the top, in `server`, or in what upstreams inherit."""
    starts = [Document, Document.model_fields["server"].annotation, Document.model_fields["defaults"].annotation]
    return any(_leads_somewhere(start, key.split(".")) for start in starts)


def _leads_somewhere(model: Any, path: list[str]) -> bool:
    for name in path:
        fields = getattr(model, "model_fields", {})
        if name not in fields:
            return False
        model = fields[name].annotation
    return True


def is_file(name: str) -> bool:
    return any((folder / name).exists() for folder in (ROOT, ROOT / "devhost_server", ROOT / "docs"))


ABOUT_CODE = NAMED[:2]
NOT_OURS = ("asyncio.", "uvicorn.", "httpx.")
WORDS = {"api_key", "SO_REUSEPORT", "PR_SET_PDEATHSIG"}


@pytest.mark.parametrize("page", NAMED, ids=relative)
def test_what_is_named_is_there(page: Path) -> None:
    text = without_code(page.read_text())
    made = re.sub(r"<!-- made: .*?<!-- end -->", "", text, flags=re.DOTALL)
    names = {name for name in re.findall(r"`(\w[\w/]*(?:\.\w+)+)`", made) if not name.startswith(NOT_OURS)}
    if page in ABOUT_CODE:
        names |= set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+|[a-z]+_[a-z_]+|[A-Z]+_[A-Z_]+)`", made)) - WORDS
    assert len(names) > 5
    assert {name for name in names if not (is_file(name) or is_key(name) or is_name(name))} == set()
