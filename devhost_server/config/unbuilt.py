"""Keys that mean something in a later version: refused as such, and never named as allowed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from devhost_server.config.problems import Problem
from devhost_server.config.tree import Node, Path, dotted, plain, with_value


@dataclass(frozen=True)
class Unbuilt:
    """Such a key: where it may stand (``*`` is any name), the value that asks for nothing, and words."""

    path: tuple[str, ...]
    harmless: Any
    what: str


_OF_UPSTREAMS: Final[tuple[tuple[str, Any, str], ...]] = (
    ("health_check", None, "active health checks are"),
    ("outlier", None, "outlier ejection is"),
    ("circuit_breaker", None, "circuit breaking is"),
    ("hold", None, "holding requests while an upstream is down is"),
    ("hash_on", None, "hash balancing is"),
    ("protocol", "auto", "choosing the protocol is"),
    ("tls", None, "TLS options of upstreams are"),
    ("send_proxy", None, "the PROXY protocol is"),
    ("sticky", None, "sticky sessions are"),
    ("slow_start", "0s", "slow start is"),
    ("dns", None, "resolving names anew is"),
    ("retries.statuses", [], "retrying answers by their status is"),
    ("retries.methods", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"], "choosing the methods that are retried is"),
)
UNBUILT: Final = (
    *(
        Unbuilt((*place, *key.split(".")), harmless, what)
        for place in (("upstreams", "*"), ("defaults",), ("routes", "*"))
        for key, harmless, what in _OF_UPSTREAMS
    ),
    Unbuilt(("routes", "*", "policies"), [], "policies are"),
    Unbuilt(("routes", "*", "skip"), [], "policies are"),
    Unbuilt(("routes", "*", "overlays"), False, "overlays are"),
    Unbuilt(("defaults", "policies"), [], "policies are"),
    Unbuilt(("server", "watch"), False, "watching the configuration files is"),
    Unbuilt(("server", "state_dir"), None, "dynamic routes are"),
    Unbuilt(("server", "tls"), None, "TLS towards clients is"),
    Unbuilt(("server", "http2"), None, "HTTP/2 is"),
    Unbuilt(("policies",), {}, "policies are"),
    Unbuilt(("tracing",), None, "tracing is"),
    Unbuilt(("leases",), {}, "dynamic routes are"),
    Unbuilt(("capture",), {}, "capturing exchanges is"),
    Unbuilt(("notify",), [], "notifying is"),
    Unbuilt(("store",), None, "a shared store is"),
    Unbuilt(("discovery",), {}, "discovery is"),
)


def without_unbuilt(tree: Node, problems: list[Problem]) -> Node:
    """Take keys of later versions out of the tree; one that asks for something is a problem, never ignored."""
    for feature in UNBUILT:
        for path, node in list(_matching(tree, feature.path)):
            value = plain(node)
            if value is not None and value != feature.harmless:
                message = f"{feature.what} not built in this version, so it would have no effect: remove the key"
                problems.append(Problem.at(node.key_at, dotted(path), message))
            tree = with_value(tree, path, None)
    return tree


def is_unbuilt(path: Path) -> bool:
    """Return whether the key at `path` is one of a later version."""
    return any(
        len(each.path) == len(path) and all(part in ("*", key) for part, key in zip(each.path, path, strict=True))
        for each in UNBUILT
    )


def _matching(node: Node, pattern: tuple[str, ...], path: Path = ()) -> Iterable[tuple[Path, Node]]:
    if not pattern:
        yield path, node
        return
    for key, child in node.children():
        if pattern[0] in ("*", key):
            yield from _matching(child, pattern[1:], (*path, key))
