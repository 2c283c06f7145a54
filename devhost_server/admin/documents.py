"""What the API says: JSON documents made from a view. Nothing here does I/O; the clock is passed in.

Times are RFC 3339 in UTC with milliseconds, durations are seconds.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from devhost_server.observe.view import View
from devhost_server.shared.board import Board, Slot, TargetCell, WorkerState

Json = dict[str, Any]


def timestamp(microseconds: int) -> str:
    """Write Unix time in microseconds as RFC 3339."""
    at = datetime.fromtimestamp(microseconds // 1_000_000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{microseconds // 1000 % 1000:03d}Z"


def _seconds_since(microseconds: int, now: float) -> int:
    return max(int(now - microseconds / 1e6), 0) if microseconds else 0


def state(view: View) -> str:
    """Return in a word what the gateway is doing."""
    if view.is_draining():
        return "draining"
    return "running" if view.is_serving() else "starting"


def status(view: View, report: Json | None, *, version: str, master: int, now: float) -> Json:
    """Describe the gateway. `now` is Unix time in seconds, `master` the pid of the master."""
    return {
        "version": version,
        "env": view.served.env,
        "generation": view.board(Board.GENERATION),
        "instance": view.served.instance,
        "uptime_s": _seconds_since(view.board(Board.STARTED_AT), now),
        "state": state(view),
        "pid": master,
        "workers": [worker(slot, row, now) for slot, row in view.workers().items()],
        "upstreams": upstreams(view),
        "last_reload": None if report is None else reload(report),
    }


def reload(report: Json) -> Json:
    """Describe a reload; which request it served is between the master and this process."""
    return {key: value for key, value in report.items() if key != "served_request"}


def worker(slot: int, row: memoryview, now: float) -> Json:
    """Describe one worker."""
    return {
        "slot": slot,
        "pid": row[Slot.PID],
        "state": WorkerState(row[Slot.STATE]).name.lower(),
        "generation": row[Slot.GENERATION],
        "connections": row[Slot.CONNECTIONS],
        "in_flight": row[Slot.IN_FLIGHT],
        "websockets": row[Slot.WEBSOCKETS],
        # The first worker of a slot replaces nobody.
        "restarts": max(row[Slot.RESTARTS] - 1, 0),
        "uptime_s": _seconds_since(row[Slot.STARTED_AT], now),
    }


def upstreams(view: View) -> list[Json]:
    """Describe the upstreams of the configuration and what their targets are doing."""
    return [
        {"name": name, "targets": [_target_load(view, at, target["url"]) for at, target in _targets(view, name)]}
        for name in view.served.shown.get("upstreams", {})
    ]


def _target_load(view: View, at: int | None, url: str) -> Json:
    since = None if at is None else view.failing_since(at)
    cells = {"in_flight": TargetCell.IN_FLIGHT, "connections_active": TargetCell.ACTIVE}
    cells["connections_idle"] = TargetCell.IDLE
    return {
        "url": url,
        **{key: 0 if at is None else view.total(at + cell) for key, cell in cells.items()},
        "up": target_up(view, at),
        "failing_since": None if since is None else timestamp(since),
    }


def _targets(view: View, upstream: str) -> Iterator[tuple[int | None, Json]]:
    """Return the first cell of each target, found by what it is really called, and the target as it may be shown."""
    served = view.served
    real, shown = (settings["upstreams"][upstream]["targets"] for settings in (served.settings, served.shown))
    for each, target in zip(real, shown, strict=True):
        block = served.targets.get((upstream, each["url"]))
        yield None if block is None else view.scoreboard.target_at(block), target


def target_up(view: View, at: int | None) -> bool | None:
    """Return whether the target with that first cell can be reached; None where nobody has tried yet."""
    if at is None or not view.was_tried(at):
        return None
    return view.failing_since(at) is None


def routes(view: View) -> Json:
    """Describe the routes that are served, in the order of the configuration."""
    configured = view.served.shown.get("routes", {})
    return {
        "generation": view.served.generation,
        "bind": view.served.shown.get("server", {}).get("bind", []),
        "routes": [_route(view, *entry) for entry in configured.items()],
    }


def _route(view: View, name: str, route: Mapping[str, Any]) -> Json:
    upstream = view.served.settings["routes"][name]["upstream"]
    shared = view.served.shown.get("upstreams", {}).get(upstream, {}).get("timeouts")
    return {
        **{key: route[key] for key in ("name", "hosts", "path", "methods", "headers", "upstream")},
        "targets": [
            {"url": target["url"], "weight": target["weight"], "up": target_up(view, at)}
            for at, target in (_targets(view, upstream) if upstream else ())
        ],
        "timeouts": route.get("timeouts") or shared,
        **{key: route[key] for key in ("owner", "respond", "strip_prefix", "slash")},
        **{key: route[key] for key in ("upgrades", "trailers", "details")},
    }


def config(view: View) -> Json:
    """Return the configuration that is served."""
    return {"generation": view.served.generation, "settings": view.served.shown}
