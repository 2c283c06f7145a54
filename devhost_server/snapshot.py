"""One configuration made ready to serve: routes compiled, upstreams alive, everything else read-only.

The master publishes each configuration as one document; a worker builds a snapshot of it beside the running one and
swaps a single attribute. An exchange keeps the snapshot it began with. Parts that are equal in both keep their live
state: an upstream whose options did not change keeps its connections, its balance and its account of retries.
"""

import asyncio
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import orjson

from devhost_server.config.models import RouteOptions, Settings, default_details
from devhost_server.messages.options import ClientTimeouts, Limits
from devhost_server.messages.trust import Audience, Trust, fold
from devhost_server.route import Route
from devhost_server.routing import RouteMatch, RouteTable
from devhost_server.shared.board import Scoreboard
from devhost_server.timing.deadlines import Wheel
from devhost_server.upstream.upstream import Upstream

# The name under which requests are counted that no route answers. No route can be called so.
UNROUTED: Final = "-"
# Routes compiled before the event loop gets a turn: about 2 ms of work.
_BATCH: Final = 100


@dataclass(frozen=True, slots=True)
class Blocks:
    """Which block on the scoreboard belongs to whom; a target is called UPSTREAM, a blank, and its URL."""

    routes: Mapping[str, int]
    upstreams: Mapping[str, int]
    targets: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Document:
    """What the master publishes: a configuration, its number, and the blocks on the scoreboard."""

    generation: int
    env: str
    instance: str
    settings: dict[str, Any]
    blocks: Blocks

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read what `text` wrote."""
        data = orjson.loads(text)
        return cls(data["generation"], data["env"], data["instance"], data["settings"], Blocks(**data["blocks"]))

    def text(self) -> bytes:
        """Return the document as it is published."""
        return orjson.dumps(self)


class Snapshot:
    """One configuration, ready to serve."""

    __slots__ = (
        "env",
        "generation",
        "instance",
        "limits",
        "routes",
        "settings",
        "strict_paths",
        "timeouts",
        "trust",
        "unrouted",
        "upstreams",
    )

    def __init__(
        self,
        document: Document,
        settings: Settings,
        routes: RouteTable[Route],
        upstreams: dict[str, Upstream],
        unrouted: Route,
    ) -> None:
        self.generation = document.generation
        self.env = document.env
        self.instance = document.instance.encode()
        self.settings = settings
        self.limits: Limits = settings.server.limits
        self.timeouts: ClientTimeouts = settings.server.timeouts
        self.trust = trust_of(settings)
        self.strict_paths = settings.server.paths == "strict"
        self.routes = routes
        self.upstreams = upstreams
        self.unrouted = unrouted

    def __repr__(self) -> str:
        return f"<Snapshot {self.env} generation={self.generation}>"


class Builder:
    """Builds snapshots for one worker."""

    def __init__(self, scoreboard: Scoreboard, slot: int, wheel: Wheel) -> None:
        self._scoreboard = scoreboard
        self._row = scoreboard.row(slot)
        self._slot = slot
        self._wheel = wheel

    async def build(self, document: Document, previous: Snapshot | None) -> Snapshot:
        """Make a snapshot of a document, keeping what `previous` has alive and the document does not change.

        Gives the event loop a turn now and then, so that thousands of routes do not stall the traffic.
        """
        settings = Settings.model_validate(document.settings)
        await asyncio.sleep(0)
        upstreams = {}
        for count, name in enumerate(settings.upstreams):
            upstreams[name] = self._upstream(name, settings, document.blocks, previous)
            if count % _BATCH == _BATCH - 1:
                await asyncio.sleep(0)
        entries = []
        for count, (name, options) in enumerate(settings.routes.items()):
            entries.append((match_of(options), self._route(name, options, document.blocks, upstreams)))
            if count % _BATCH == _BATCH - 1:
                await asyncio.sleep(0)
        unrouted = Route(
            UNROUTED,
            self._scoreboard.route_at(document.blocks.routes[UNROUTED]),
            details=audience_of(default_details(settings.env)),
        )
        return Snapshot(document, settings, RouteTable(entries), upstreams, unrouted)

    def _upstream(self, name: str, settings: Settings, blocks: Blocks, previous: Snapshot | None) -> Upstream:
        options = settings.upstreams[name]
        cell = self._scoreboard.upstream_at(blocks.upstreams[name])
        target_cells = [
            self._scoreboard.target_at(blocks.targets[target_key(name, target.url)]) for target in options.targets
        ]
        kept = previous.upstreams.get(name) if previous is not None else None
        if (
            kept is not None
            and kept.options == options
            and kept.cell == cell
            and [target.cell for target in kept.targets] == target_cells
        ):
            return kept
        return Upstream(name, options, self._wheel, self._row, cell, target_cells, start=self._slot)

    def _route(self, name: str, options: RouteOptions, blocks: Blocks, upstreams: dict[str, Upstream]) -> Route:
        return Route(
            name,
            self._scoreboard.route_at(blocks.routes[name]),
            owner=options.owner,
            upstream=None if options.upstream is None else upstreams[options.upstream],
            respond=options.respond,
            path=options.path.encode().rstrip(b"/"),
            strip_prefix=options.strip_prefix,
            slash=options.slash == "redirect",
            details=audience_of(options.details),
            timeouts=options.timeouts,
            upgrades=frozenset(name.encode() for name in options.upgrades),
            trailers=options.trailers,
        )


def trust_of(settings: Settings) -> Trust:
    """Return whom these settings believe about what."""
    return Trust(
        tuple(map(ipaddress.ip_network, settings.server.trusted_proxies)),
        frozenset(name.lower().encode() for name in settings.server.trusted_headers),
        frozenset(fold(name.encode()) for route in settings.routes.values() for name in route.headers),
    )


def audience_of(details: bool | tuple[str, ...]) -> Audience:
    """Return the audience that `details` of a route names."""
    if isinstance(details, bool):
        return Audience(everybody=details)
    return Audience(everybody=False, networks=tuple(map(ipaddress.ip_network, details)))


def target_key(upstream: str, url: str) -> str:
    """Return the name of a target among the blocks."""
    return f"{upstream} {url}"


def match_of(options: RouteOptions) -> RouteMatch:
    """Return what a request must satisfy for this route."""
    return RouteMatch(
        options.name, options.hosts, options.path, frozenset(options.methods), tuple(options.headers.items())
    )
