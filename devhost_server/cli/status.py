"""The verb ``status``: the state of the running gateway."""

from collections.abc import Iterable, Mapping
from typing import Any

import click

from devhost_server.admin.shapes import Status
from devhost_server.cli.group import cli
from devhost_server.cli.options import json_option
from devhost_server.cli.output import print_json
from devhost_server.cli.running_gateway import ask
from devhost_server.cli.tables import table
from devhost_server.units import printable


@cli.command()
@json_option
def status(*, as_json: bool) -> None:
    """Print the state of the running gateway.

    Its workers, the connections to its upstreams, and how the last reload went.
    """
    _, answer = ask("GET", "/api/status", Status)
    if as_json:
        print_json(answer)
    else:
        click.echo(_status_text(answer))


def _status_text(status: Mapping[str, Any]) -> str:
    """Return the answer to ``GET /api/status`` as text for a person."""
    summary = (
        f"devhost-server {status.get('version')}: {status.get('state')}, environment {status.get('env')}, "
        f"generation {status.get('generation')}, up {_since(status.get('uptime_s', 0))}, pid {status.get('pid')}"
    )
    parts = [printable(summary), "", _workers_table(status.get("workers", ()))]
    if targets := _targets_table(status.get("upstreams", ())):
        parts += ["", targets]
    return "\n".join([*parts, *_last_reload(status.get("last_reload"))])


def _workers_table(workers: Iterable[Mapping[str, Any]]) -> str:
    columns = ("slot", "pid", "state", "generation", "connections", "in_flight", "websockets", "restarts")
    head = ["worker", *(name.replace("_", " ") for name in columns[1:])]
    return table(head, [[worker.get(column) for column in columns] for worker in workers])


def _targets_table(upstreams: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the table of all targets, or None if there are no targets."""
    columns = ("url", "in_flight", "connections_active", "connections_idle")
    rows = [
        [upstream["name"], *(target.get(name) for name in columns), _health(target)]
        for upstream in upstreams
        for target in upstream.get("targets", ())
    ]
    return table(("upstream", "target", "in flight", "active", "idle", "state"), rows) if rows else None


def _health(target: Mapping[str, Any]) -> str:
    if target.get("failing_since"):
        return f"down since {target['failing_since']}"
    return "up" if target.get("up") else "not tried yet"


def _last_reload(reload: Mapping[str, Any] | None) -> list[str]:
    if not reload:
        return []
    line = f"last reload: {reload.get('result')} at {reload.get('at')}, generation {reload.get('generation')}"
    return ["", printable(line), *(f"  {printable(str(error))}" for error in reload.get("errors") or ())]


def _since(seconds: float) -> str:
    """Return a duration in its two largest units."""
    left = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= length or parts:
            parts.append(f"{left // length}{unit}")
            left %= length
    return " ".join(parts[:2]) or "0s"
