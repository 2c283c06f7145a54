"""What the API says: JSON documents made from a view. Nothing here does I/O; the clock is passed in.

Times are RFC 3339 in UTC with milliseconds, durations are seconds.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from devhost_server.observe.scoreboard import Board, Slot, TargetCell, WorkerState
from devhost_server.observe.view import View

_MASK: Final = "********"
_SECRET_WORDS: Final = frozenset({"token", "password", "passwd", "secret", "authorization", "cookie"})

Json = dict[str, Any]


def timestamp(microseconds: int) -> str:
    """Write Unix time in microseconds as RFC 3339."""
    at = datetime.fromtimestamp(microseconds // 1_000_000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{microseconds // 1000 % 1000:03d}Z"


def _seconds_since(microseconds: int, now: float) -> int:
    return max(int(now - microseconds / 1e6), 0) if microseconds else 0


def state(view: View) -> str:
    """Say in a word what the gateway is doing."""
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
        "last_reload": report,
    }


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
    configured = view.served.settings.get("upstreams", {})
    return [
        {"name": name, "targets": [_target_load(view, name, target["url"]) for target in upstream["targets"]]}
        for name, upstream in configured.items()
    ]


def _target_load(view: View, upstream: str, url: str) -> Json:
    at = _target_at(view, upstream, url)
    since = None if at is None else view.failing_since(at)
    cells = {"in_flight": TargetCell.IN_FLIGHT, "connections_active": TargetCell.ACTIVE}
    cells["connections_idle"] = TargetCell.IDLE
    return {
        "url": url,
        **{key: 0 if at is None else view.total(at + cell) for key, cell in cells.items()},
        "failing_since": None if since is None else timestamp(since),
    }


def _target_at(view: View, upstream: str, url: str) -> int | None:
    block = view.served.targets.get((upstream, url))
    return None if block is None else view.scoreboard.target_at(block)


def target_up(view: View, upstream: str, url: str) -> bool | None:
    """Tell whether a target can be reached; None where nobody has tried yet."""
    at = _target_at(view, upstream, url)
    if at is None or not view.was_tried(at):
        return None
    return view.failing_since(at) is None


def routes(view: View) -> Json:
    """Describe the routes that are served, in the order of the configuration."""
    configured = view.served.settings.get("routes", {})
    return {"generation": view.served.generation, "routes": [_route(view, route) for route in configured.values()]}


def _route(view: View, route: Mapping[str, Any]) -> Json:
    upstream = route["upstream"]
    targets = view.served.settings["upstreams"][upstream]["targets"] if upstream else []
    return {
        **{key: masked(route[key]) for key in ("name", "hosts", "path", "methods", "headers", "upstream")},
        "targets": [
            {"url": t["url"], "weight": t["weight"], "up": target_up(view, upstream, t["url"])} for t in targets
        ],
        **{key: masked(route[key]) for key in ("owner", "respond", "strip_prefix")},
    }


def config(view: View) -> Json:
    """Give the configuration that is served, with what looks like a secret masked."""
    return {"generation": view.served.generation, "settings": masked(view.served.settings)}


def masked(value: object, key: str = "") -> object:
    """Copy `value` with everything replaced that stands right under a key that names a secret."""
    if isinstance(value, Mapping):
        return {name: masked(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [masked(item, key) for item in value]
    words = key.lower().replace("_", "-").split("-")
    return value if value is None or _SECRET_WORDS.isdisjoint(words) else _MASK
