"""One configuration made ready to serve: routes compiled, upstreams alive, everything else read-only.

The master publishes each configuration as one document; a worker builds a snapshot of it beside the running one and
swaps a single attribute. An exchange keeps the snapshot it began with. Parts that are equal in both keep their live
state: an upstream whose options did not change keeps its connections, its balance and its account of retries.

A reload costs what it changes. In the published text every upstream and route is a line of its own; a line that was
there before is neither parsed nor checked again. And it does not hold up traffic: the work on each upstream and route
is done in slices of about 2 ms, between which the event loop has its turn.
"""

import asyncio
import hashlib
import ipaddress
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import orjson

from devhost_server.config.models import RouteOptions, Settings, default_details
from devhost_server.messages.options import ClientTimeouts, Limits
from devhost_server.messages.trust import Audience, Trust, fold
from devhost_server.route import Route
from devhost_server.routing import RouteMatch, RouteTable
from devhost_server.shared.board import Scoreboard
from devhost_server.timing.deadlines import Wheel
from devhost_server.upstream.options import UpstreamOptions
from devhost_server.upstream.upstream import Upstream

# The name under which requests are counted that no route answers. No route can be called so.
UNROUTED: Final = "-"
# How long building goes on before the event loop gets a turn.
_SLICE_SECONDS: Final = 0.002
# The lines of a published text between which upstreams and routes stand, and behind which nothing does.
_ROUTES_LINE: Final = b'},"routes":{'
_LAST_LINE: Final = b"}}}"

_Part = TypeVar("_Part", UpstreamOptions, RouteOptions)


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
        """Return the document as it is published: JSON, in which every upstream and route is a line of its own."""
        rest = dict(self.settings)
        upstreams, routes = rest.pop("upstreams", None), rest.pop("routes", None)
        if upstreams is None or routes is None:
            return orjson.dumps(self)
        head = {
            "generation": self.generation,
            "env": self.env,
            "instance": self.instance,
            "blocks": self.blocks,
            "settings": rest,
        }
        lines = (
            orjson.dumps(head)[:-2] + (b',"upstreams":{' if rest else b'"upstreams":{'),
            *_lines(upstreams),
            _ROUTES_LINE,
            *_lines(routes),
            _LAST_LINE,
        )
        return b"\n".join(lines)


def _lines(parts: dict[str, Any]) -> list[bytes]:
    """Return each entry of an object as a line, all but the last with a comma."""
    lines = [orjson.dumps({name: options})[1:-1] for name, options in parts.items()]
    return [line + b"," for line in lines[:-1]] + lines[-1:]


@dataclass(frozen=True, slots=True)
class Outline:
    """A published document of which upstreams and routes have not been read yet: one text each."""

    document: Document
    upstreams: list[bytes]
    routes: list[bytes]

    @classmethod
    def read(cls, text: bytes) -> Self:
        """Take apart what `Document.text` wrote. Raises `ValueError`."""
        lines = text.split(b"\n")
        middle = lines.index(_ROUTES_LINE)
        document = Document.parse(lines[0] + lines[middle] + lines[-1])
        return cls(document, lines[1:middle], lines[middle + 1 : -1])


@dataclass(frozen=True, slots=True)
class Parts:
    """What a snapshot was made of, by the digests of the lines that it was read from."""

    upstreams: dict[bytes, tuple[str, UpstreamOptions]]
    routes: dict[bytes, tuple[RouteOptions, RouteMatch, Route]]


class Snapshot:
    """One configuration, ready to serve."""

    __slots__ = (
        "env",
        "generation",
        "instance",
        "limits",
        "parts",
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
        parts: Parts,
    ) -> None:
        self.parts = parts
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

    async def build(self, outline: Outline, previous: Snapshot | None) -> Snapshot:
        """Make a snapshot of a document, keeping what `previous` has alive and the document does not change.

        Gives the event loop a turn every few milliseconds, so that thousands of routes do not stall the traffic.
        """
        document, slices = outline.document, _Slices()
        await slices.pause()
        parts = Parts({}, {})
        upstreams = {}
        for line in outline.upstreams:
            key = _digest(line)
            known = None if previous is None else previous.parts.upstreams.get(key)
            name, options = known or _read(line, UpstreamOptions)
            parts.upstreams[key] = name, options
            upstreams[name] = self._upstream(name, options, document.blocks, previous)
            if slices.over:
                await slices.pause()
        # Where a generation was left out, a block may have been somebody else's meanwhile, and what a route remembers
        # of its cells may be wrong.
        follows = previous is not None and document.generation == previous.generation + 1
        for line in outline.routes:
            key = _digest(line)
            part = None if previous is None else previous.parts.routes.get(key)
            parts.routes[key] = self._entry(line, part, document.blocks, upstreams, keep=follows)
            if slices.over:
                await slices.pause()
        table: RouteTable[Route] = RouteTable()
        for _ in table.filling([(match, route) for _, match, route in parts.routes.values()]):
            if slices.over:
                await slices.pause()
        settings = Settings.model_validate(document.settings).model_copy(
            update={
                "upstreams": dict(parts.upstreams.values()),
                "routes": {options.name: options for options, _, _ in parts.routes.values()},
            }
        )
        unrouted = Route(
            UNROUTED,
            self._scoreboard.route_at(document.blocks.routes[UNROUTED]),
            details=audience_of(default_details(settings.env)),
        )
        await slices.pause()
        return Snapshot(document, settings, table, upstreams, unrouted, parts)

    def _entry(
        self,
        line: bytes,
        part: tuple[RouteOptions, RouteMatch, Route] | None,
        blocks: Blocks,
        upstreams: dict[str, Upstream],
        *,
        keep: bool,
    ) -> tuple[RouteOptions, RouteMatch, Route]:
        """Return a route with what it was made of: `part` of the snapshot before, as far as it still holds."""
        if part is None:
            name, options = _read(line, RouteOptions)
            return options, match_of(options), self._route(name, options, blocks, upstreams)
        options, match, route = part
        upstream = None if options.upstream is None else upstreams[options.upstream]
        if keep and route.upstream is upstream and route.cell == self._scoreboard.route_at(blocks.routes[route.name]):
            return part
        return options, match, self._route(route.name, options, blocks, upstreams)

    def _upstream(self, name: str, options: UpstreamOptions, blocks: Blocks, previous: Snapshot | None) -> Upstream:
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


class _Slices:
    """Says when whoever shares the event loop has worked for long enough."""

    def __init__(self) -> None:
        self._end = 0.0

    @property
    def over(self) -> bool:
        """Whether it is time to pause."""
        return time.perf_counter() > self._end

    async def pause(self) -> None:
        """Give the event loop a turn, and begin the next slice."""
        await asyncio.sleep(0)
        self._end = time.perf_counter() + _SLICE_SECONDS


def _digest(line: bytes) -> bytes:
    """Return what stands for a line: few bytes, so that a snapshot does not keep the whole text."""
    return hashlib.blake2b(line.rstrip(b","), digest_size=24).digest()


def _read(line: bytes, model: type[_Part]) -> tuple[str, _Part]:
    """Read one line of a published text: the name and the options of a part."""
    ((name, values),) = orjson.loads(b"{%b}" % line.rstrip(b",")).items()
    return name, model.model_validate(values)


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
