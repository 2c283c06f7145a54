"""The table of routes that ``check`` and ``routes`` print."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from devhost_server.cli.tables import table
from devhost_server.options import parse_bind
from devhost_server.units import printable, render_duration
from devhost_server.upstream.options import UpstreamTimeouts

# Few routes have these. They are written below a route if there is no room beside it.
_ASIDE: Final = ("methods", "headers", "time-outs", "owner")


def routes_table(routes: Iterable[Mapping[str, Any]], width: int | None = None) -> str:
    """Return routes, in the shape of ``GET /api/routes``, as a table. `width` is that of the terminal."""
    head = ("route", "host", "path", "methods", "headers", "answer", "targets", "time-outs", "owner")
    return table(head, [_route_row(route) for route in routes], width, _ASIDE)


def _route_row(route: Mapping[str, Any]) -> tuple[object, ...]:
    conditions = route.get("headers") or {}
    fixed = route.get("respond")
    answer = f"answers {fixed['status']}" if fixed else f"upstream {route.get('upstream')}"
    return (
        route["name"],
        route["hosts"],
        f"{route['path']} (cut off)" if route.get("strip_prefix") is True else route["path"],
        ",".join(route.get("methods") or ()),
        [f"{name}: {value}" for name, value in conditions.items()],
        answer,
        [_target(target) for target in route.get("targets") or ()],
        _unusual_timeouts(route.get("timeouts") or {}),
        route.get("owner"),
    )


def _unusual_timeouts(timeouts: Mapping[str, Any]) -> list[str]:
    """Return the time-outs that differ from the defaults. All of them would make every table too wide."""
    usual = UpstreamTimeouts().model_dump()
    return [
        f"{name} {render_duration(value) if isinstance(value, int | float) else value}"
        for name, value in timeouts.items()
        if value != usual.get(name)
    ]


def _target(target: Mapping[str, Any]) -> str:
    weight = f" x{target['weight']}" if target.get("weight", 1) != 1 else ""
    state = {True: " (up)", False: " (down)"}.get(target["up"], "") if target.get("up") is not None else ""
    return f"{target['url']}{weight}{state}"


def listening(binds: Iterable[str]) -> str:
    """Return the sentence that names the listeners."""
    return printable(f"listens on {', '.join(map(_described, binds))}")


def _described(bind: str) -> str:
    try:
        return parse_bind(bind).described
    except ValueError:  # a masked secret is no address
        return bind
