"""What clients rely on in the answers of the API: as much as they read of them. What else is there is let through.

The command line compares each answer with its shape before it believes that a devhost-server has given it.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Shape(BaseModel):
    """An object with these members and perhaps others, of exactly these JSON types."""

    model_config = ConfigDict(strict=True)


class Target(Shape):
    """A target of a route."""

    url: str
    weight: int | str = 1  # text where it is masked, as every number may be
    up: bool | None = None


class FixedAnswer(Shape):
    """An answer of the gateway's own."""

    status: int | str


class Route(Shape):
    """A route."""

    name: str
    hosts: list[str]
    path: str
    methods: list[str] = []
    headers: dict[str, str] = {}
    upstream: str | None
    targets: list[Target]
    owner: str | None = None
    respond: FixedAnswer | None = None
    strip_prefix: bool | str = False
    timeouts: dict[str, float | str] | None = None


class Routes(Shape):
    """``GET /api/routes``."""

    generation: int
    routes: list[Route]
    bind: list[str] = []


class Worker(Shape):
    """A worker."""

    slot: int
    pid: int
    state: str
    generation: int
    connections: int
    in_flight: int
    websockets: int
    restarts: int


class Load(Shape):
    """A target, and what it is doing."""

    url: str
    in_flight: int
    connections_active: int
    connections_idle: int
    up: bool | None = None
    failing_since: str | None = None


class Upstream(Shape):
    """An upstream."""

    name: str
    targets: list[Load]


class Reload(Shape):
    """How a reload ended."""

    result: str
    at: str
    generation: int
    errors: list[str] = []


class Status(Shape):
    """``GET /api/status``."""

    version: str
    env: str
    generation: int
    uptime_s: float
    state: str
    pid: int
    workers: list[Worker]
    upstreams: list[Upstream]
    last_reload: Reload | None


class Reloaded(Shape):
    """``POST /api/reload``, done."""

    result: Literal["ok"]
    generation: int


class NotReloaded(Shape):
    """``POST /api/reload``, refused."""

    errors: list[str]


class Draining(Shape):
    """``POST /api/drain``."""

    state: Literal["draining"]
