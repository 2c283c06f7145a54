"""From a valid `Document` to `Settings`: names looked up, hosts and defaults filled in, contradictions found."""

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any, Final

from devhost_server.config.hints import suggestion
from devhost_server.config.models import (
    Document,
    RouteOptions,
    RouteSection,
    ServerOptions,
    ServerSection,
    Settings,
    default_details,
    default_paths,
)
from devhost_server.config.problems import Problem
from devhost_server.config.tree import Node, Path, dotted, find
from devhost_server.config.validate import Validated, place_of
from devhost_server.options import Bind, host_name, parse_bind
from devhost_server.routing import RouteMatch, ambiguities
from devhost_server.units import quote
from devhost_server.upstream.options import UpstreamDefaults, UpstreamOptions, UpstreamTimeouts

# How many routes of a larger tie are named beside the first two; all of them would hide what else is wrong.
_NAMED_TIES: Final = 3


def resolved(document: Document, env: str, secrets: Iterable[Path] = ()) -> Settings:
    """Return the settings of a document that `cross_checked` found nothing wrong with.

    `secrets` are the paths in the document of what came out of files.
    """
    upstreams = {name: _with_defaults(upstream, document.defaults) for name, upstream in document.upstreams.items()}
    for name, route in document.routes.items():
        if route.to:
            own = UpstreamOptions.model_validate({"targets": route.to, **route.upstream_options})
            upstreams[name] = _with_defaults(own, document.defaults)
    return Settings(
        env=env,
        server=_server(document.server, env),
        log=document.log,
        admin=document.admin,
        domain=document.domain,
        echo=document.echo,
        upstreams=upstreams,
        routes={
            name: _route(name, route, document.domain, env, upstreams.get(route.upstream or ""))
            for name, route in document.routes.items()
        },
        secrets=tuple(dict.fromkeys(place for path in secrets for place in _places(path, document))),
    )


def _server(section: ServerSection, env: str) -> ServerOptions:
    given = section.model_dump(exclude={"watch", "state_dir"})
    if "paths" not in section.model_fields_set:
        given["paths"] = default_paths(env)
    return ServerOptions.model_validate(given)


def _places(path: Path, document: Document) -> Iterator[Path]:
    """Return where in the settings the value at a path of the document ends up."""
    match path:
        case ("domain",):
            yield path
            yield from (("routes", name, "hosts") for name, route in document.routes.items() if route.host is None)
        case ("defaults", *rest):
            users = (*document.upstreams, *(name for name, route in document.routes.items() if route.to))
            yield from (("upstreams", name, *rest) for name in users)
        case ("upstreams", name, "targets", *rest) | ("routes", name, "to", *rest):
            yield ("upstreams", name, "targets", *_place_of_target(rest))
        case ("routes", name, key, *rest) if key in UpstreamDefaults.model_fields and document.routes[str(name)].to:
            yield ("upstreams", name, key, *rest)
        case ("routes", name):
            yield ("upstreams", name, "targets", *_place_of_target([]))
        # Lists that lose what is there twice: nobody knows which place an item of them comes to.
        case ("routes", name, "host", *_):
            yield ("routes", name, "hosts")
        case ("routes", name, "methods" | "upgrades" as key, *_):
            yield ("routes", name, key)
        case ("server", "bind" | "trusted_proxies" | "trusted_headers" as name, *_):
            yield ("server", name)
        case (*parents, "headers", header):
            yield (*parents, "headers", str(header).lower())
        case _:
            yield path


def _place_of_target(rest: list[str | int]) -> Path:
    """Return index and key of a target: a list of one may be written as its item, a target as its URL."""
    index = rest[0] if rest and isinstance(rest[0], int) else 0
    return index, rest[-1] if rest and isinstance(rest[-1], str) else "url"


def _with_defaults(upstream: UpstreamOptions, defaults: UpstreamDefaults) -> UpstreamOptions:
    given = upstream.model_dump(exclude_unset=True, exclude={"override"})
    return UpstreamOptions.model_validate(_overlaid(defaults.model_dump(exclude_unset=True), given))


def _overlaid(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _overlaid(lower[key], upper[key]) for key in lower.keys() & upper.keys() if isinstance(upper[key], dict)
    }
    return {**lower, **upper, **both}


def _route(
    name: str, route: RouteSection, domain: str, env: str = "", upstream: UpstreamOptions | None = None
) -> RouteOptions:
    return RouteOptions(
        name=name,
        hosts=route.host or (host_name(f"{name}.{domain}"),),
        path=route.path,
        methods=route.methods,
        headers=route.headers,
        upstream=name if route.to else route.upstream,
        respond=route.respond,
        timeouts=_timeouts(route, upstream) if upstream is not None else None,
        strip_prefix=route.strip_prefix,
        upgrades=route.upgrades,
        trailers=route.trailers,
        slash=route.slash,
        details=default_details(env) if route.details is None else route.details,
        owner=route.owner,
    )


def _timeouts(route: RouteSection, upstream: UpstreamOptions) -> UpstreamTimeouts | None:
    """Return the time-outs of a route that has some of its own, completed by its upstream's."""
    given = route.timeouts.model_dump(exclude_unset=True)
    return UpstreamTimeouts.model_validate({**upstream.timeouts.model_dump(), **given}) if given else None


def cross_checked(validated: Validated) -> list[Problem]:
    """Find what no key is wrong about alone: names that lead nowhere, ties between routes, addresses taken twice."""
    checks = (_wrong_names, _hosts_without_name, _ties, _shared_addresses)
    return [_placed(validated.tree, path, message) for check in checks for path, message in check(validated)]


def _placed(tree: Node, path: Path, message: str) -> Problem:
    node, _ = find(tree, path)
    return Problem.at(place_of(node), dotted(path), message)


def _wrong_names(validated: Validated) -> Iterator[tuple[Path, str]]:
    section, path = find(validated.tree, ("upstreams",))
    # Those that are wrong in themselves exist nevertheless; those that were removed do not.
    known = [str(name) for name, node in section.children() if node.value is not None] if path else []
    for name, route in validated.document.routes.items():
        if route.upstream is not None and route.upstream not in known:
            allowed = f"allowed: {', '.join(known)}" if known else "`upstreams` has none; `to: URL` needs no name"
            reason = f"there is no upstream {quote(route.upstream)}"
            yield ("routes", name, "upstream"), f"{reason}; {allowed}{suggestion(route.upstream, known)}"
        if route.to and name in known:
            reason = f"`to` makes an upstream of the route's name, and upstreams.{name} exists already"
            yield ("routes", name, "to"), f"{reason}: write `upstream: {name}` instead, or rename one"


def _hosts_without_name(validated: Validated) -> Iterator[tuple[Path, str]]:
    for name, route in validated.document.routes.items():
        if route.host is None:
            try:
                host_name(f"{name}.{validated.document.domain}")
            except ValueError as error:
                yield ("routes", name), f"the host made of its name and `domain` is none: {error}; give it a `host`"


def _ties(validated: Validated) -> Iterator[tuple[Path, str]]:
    matches = [
        RouteMatch(name, route.hosts, route.path, frozenset(route.methods), tuple(sorted(route.headers.items())))
        for name, route in _routes_with_hosts(validated)
    ]
    for tie in ambiguities(matches):
        first, second, *others = tie.routes
        named = [_name_and_place(validated.tree, name) for name in (first, *others[:_NAMED_TIES])]
        left = len(others[_NAMED_TIES:])
        whom = f"{', '.join(named)}{f' and {left} more' if left else ''}"
        hosts = f"{tie.hosts[0]}{f' (and {len(tie.hosts) - 1} more)' if tie.hosts[1:] else ''}"
        where = f"host {hosts} path {tie.path}"
        said = (
            f"a tie with the routes {whom}: all answer {where} and none is more specific than another"
            if others
            else f"a tie with the route {whom}: both answer {where} and neither is more specific"
        )
        yield ("routes", second), f"{said}; set them apart by host, path, methods or headers"


def _name_and_place(tree: Node, name: str) -> str:
    node, _ = find(tree, ("routes", name))
    return f"{name} ({node.key_at})"


def _routes_with_hosts(validated: Validated) -> Iterator[tuple[str, RouteOptions]]:
    for name, route in validated.document.routes.items():
        # With a wrong `domain`, nobody knows what the computed hosts would have been.
        if route.host is None and ("domain",) in validated.left_out:
            continue
        try:
            yield name, _route(name, route, validated.document.domain)
        except ValueError:
            continue  # already a problem of its own, see `_hosts_without_name`


def _shared_addresses(validated: Validated) -> Iterator[tuple[Path, str]]:
    document = validated.document
    taken: list[tuple[Path, Bind]] = [
        (("server", "bind", index), parse_bind(bind)) for index, bind in enumerate(document.server.bind)
    ]
    if document.admin.bind is not None:
        taken.append((("admin", "bind"), parse_bind(document.admin.bind)))
    if document.echo is not None:
        taken.append((("echo", "bind"), parse_bind(document.echo.bind)))
    sound = [(path, bind) for path, bind in taken if path[:1] not in validated.left_out]
    for (path, bind), (other_path, other) in combinations(sound, 2):
        if bind.collides(other):
            yield other_path, f"{other} and {dotted(path[:2])} ({bind}) cannot be listened on at once: change one"
