"""From a published document to what a worker serves, and what stays alive from one to the next."""

import asyncio
import copy
import ipaddress
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost_server.config.models import Settings
from devhost_server.exchange import Exchange
from devhost_server.route import Route
from devhost_server.shared.board import Capacity, Scoreboard
from devhost_server.snapshot import UNROUTED, Blocks, Builder, Document, Outline, Snapshot, match_of, target_key
from devhost_server.timing.deadlines import Wheel

ROUTES: dict[str, Any] = {
    "api": {"hosts": ["api.localhost"], "path": "/v1", "upstream": "api", "owner": "team-api", "strip_prefix": True},
    "get": {"hosts": ["api.localhost"], "path": "/v1", "methods": ["GET"], "headers": {"x-team": "blue"},
    "upstream": "api"},
    "web": {"hosts": ["web.localhost", "*.web.localhost"], "upstream": "web"},
    "ping": {"hosts": ["*"], "path": "/ping", "respond": {"status": 200, "body": "pong"}},
}  # fmt: skip
UPSTREAMS: dict[str, Any] = {
    "api": {"targets": ["http://127.0.0.1:8000", {"url": "http://127.0.0.1:8001/base", "weight": 2}]},
    "web": {"targets": ["unix:/run/web.sock"], "pass_host": False, "retries": {"attempts": 3}},
}

# A name keeps its block whatever becomes of the others, as the master sees to.
_BLOCKS = {"api http://127.0.0.1:8000": 0, "api http://127.0.0.1:8001/base": 1, "web unix:/run/web.sock": 2}

X = Exchange(cast("Any", None), b"GET", b"/", None, 0.0)


def document(
    routes: dict[str, Any] = ROUTES, upstreams: dict[str, Any] = UPSTREAMS, *, generation: int = 1, **server: Any
) -> Document:
    """A document as the master would publish it, its blocks in the order of the names."""
    sections = {"env": "dev", "server": server, "log": {}, "admin": {}, "domain": "localhost", "upstreams": upstreams}
    settings = Settings.model_validate(
        sections | {"routes": {name: {"name": name} | options for name, options in routes.items()}}
    )
    keys = [target_key(name, target.url) for name, up in settings.upstreams.items() for target in up.targets]
    blocks = Blocks(
        {name: at for at, name in enumerate([UNROUTED, *routes])},
        {name: at for at, name in enumerate(upstreams)},
        {key: _BLOCKS.get(key, len(_BLOCKS) + at) for at, key in enumerate(keys)},
    )
    return Document(generation, "dev", "1a2b3c4d", settings.model_dump(mode="json"), blocks)


class Worker:
    """Builds snapshots as a worker does."""

    def __init__(self, slot: int = 0) -> None:
        self.scoreboard = Scoreboard(Capacity(slots=4, routes=600, upstreams=20, targets=20))
        self.builder = Builder(self.scoreboard, slot, Wheel(lambda: 0.0))

    def build(self, published: Document, previous: Snapshot | None = None) -> Snapshot:
        return asyncio.run(self.builder.build(Outline.read(published.text()), previous))


def answer(snapshot: Snapshot, host: bytes, target: bytes, method: bytes = b"GET", **headers: bytes) -> Route | None:
    levels = snapshot.routes.levels(host)
    assert levels is not None
    return snapshot.routes.find(levels, target, method, lambda name: headers.get(name.decode().replace("-", "_")))


def name_of(route: Route | None) -> str | None:
    return None if route is None else route.name


# --- the document ----------------------------------------------------------------------------------------------------


def test_a_document_reads_back_as_it_was_written() -> None:
    published = document(trusted_proxies=["10.0.0.0/8"])
    assert Document.parse(published.text()) == published
    assert orjson.loads(published.text())["blocks"]["targets"] == {
        "api http://127.0.0.1:8000": 0, "api http://127.0.0.1:8001/base": 1, "web unix:/run/web.sock": 2,
    }  # fmt: skip


@given(st.integers(0, 2**62), st.text(), st.dictionaries(st.text(), st.integers(0, 1000)))
def test_any_names_and_numbers_survive(generation: int, name: str, numbers: dict[str, int]) -> None:
    published = Document(generation, name, "x", {name: [None, 1.5]}, Blocks(numbers, {}, numbers))
    try:
        text = published.text()
    except orjson.JSONEncodeError:
        return  # lone surrogates, which no YAML file can hold
    assert Document.parse(text) == published


def test_a_published_text_has_a_line_for_every_part() -> None:
    published = document()
    outline = Outline.read(published.text())
    assert [len(outline.upstreams), len(outline.routes)] == [len(UPSTREAMS), len(ROUTES)]
    settings = outline.document.settings
    assert (settings["upstreams"], settings["routes"]) == ({}, {})
    assert outline.document.blocks == published.blocks


def test_an_outline_needs_what_a_document_wrote() -> None:
    with pytest.raises(ValueError, match="not in list"):
        Outline.read(orjson.dumps(document()))


# --- what is built ---------------------------------------------------------------------------------------------------


def test_every_part_is_ready_to_serve() -> None:
    worker = Worker()
    snapshot = worker.build(
        document(generation=7, trusted_proxies=["10.0.0.0/8", "::1/128"], limits={"target": "1KiB"})
    )
    assert repr(snapshot) == "<Snapshot dev generation=7>"
    assert (snapshot.generation, snapshot.instance) == (7, b"1a2b3c4d")
    assert snapshot.trust.networks == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"))
    assert snapshot.trust.headers == {
        b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix",
    }  # fmt: skip
    assert snapshot.trust.decisive == {b"x-team"}
    assert not snapshot.strict_paths
    assert snapshot.limits.target == 1024
    assert snapshot.timeouts.head == 10.0
    assert snapshot.unrouted.name == UNROUTED
    assert set(snapshot.upstreams) == {"api", "web"}


def test_routes_are_compiled() -> None:
    snapshot = Worker().build(document())
    route = answer(snapshot, b"api.localhost:7777", b"/v1/users?x", b"POST")
    assert route is not None
    assert (route.name, route.owner, route.prefix) == ("api", "team-api", b"/v1")
    assert route.upstream is snapshot.upstreams["api"]
    assert repr(route) == "<Route api>"
    assert name_of(answer(snapshot, b"api.localhost", b"/v1", x_team=b"blue")) == "get"
    assert name_of(answer(snapshot, b"a.web.localhost", b"/")) == "web"
    ping = answer(snapshot, b"anything", b"/ping")
    assert ping is not None
    assert ping.upstream is None
    assert ping.respond is not None
    assert ping.respond.body == "pong"
    assert answer(snapshot, b"anything", b"/other") is None


def test_what_a_route_cuts_off_is_told_in_a_form_that_fits_a_field() -> None:
    routes = ROUTES | {"cafe": {"hosts": ["*"], "path": "/café b", "upstream": "web", "strip_prefix": True}}
    snapshot = Worker().build(document(routes))
    cafe, api, web = (answer(snapshot, host, target) for host, target in (
        (b"x", b"/caf%C3%A9%20b/y"), (b"api.localhost", b"/v1"), (b"web.localhost", b"/"),
    ))  # fmt: skip
    assert cafe is not None
    assert cafe.prefix_line == b"\r\nX-Forwarded-Prefix: /caf%C3%A9%20b"
    assert api is not None
    assert api.prefix_line == b"\r\nX-Forwarded-Prefix: /v1"
    assert web is not None
    assert web.prefix_line == b""


def test_who_may_see_details_of_a_route() -> None:
    routes = ROUTES | {
        "none": {"hosts": ["none"], "upstream": "web", "details": False},
        "some": {"hosts": ["some"], "upstream": "web", "details": ["10.0.0.0/8", "::1"]},
    }
    snapshot = Worker().build(document(routes))
    audiences = [route.details for host in (b"none", b"some", b"x/ping") if (route := answer(
        snapshot, host.partition(b"/")[0], b"/" + host.partition(b"/")[2]
    ))]  # fmt: skip
    assert [(each.includes(b"10.1.1.1"), each.includes(b"203.0.113.9")) for each in audiences] == [
        (False, False), (True, False), (True, True),
    ]  # fmt: skip
    assert snapshot.unrouted.details.everybody


def test_upstreams_are_alive() -> None:
    snapshot = Worker().build(document())
    api, web = snapshot.upstreams["api"], snapshot.upstreams["web"]
    assert [target.address for target in api.targets] == ["127.0.0.1:8000", "127.0.0.1:8001"]
    assert [target.base_path for target in api.targets] == [b"", b"/base"]
    picked = [api.pick(X) for _ in range(3)]
    assert [picked.count(target) for target in api.targets] == [1, 2]
    assert (web.attempts, web.pass_host) == (3, False)
    assert web.targets[0].address == "unix:/run/web.sock"


def test_cells_are_where_the_document_says() -> None:
    worker = Worker()
    published = document()
    snapshot = worker.build(published)
    board = worker.scoreboard
    route = answer(snapshot, b"web.localhost", b"/")
    assert route is not None
    assert route.cell == board.route_at(published.blocks.routes["web"])
    assert snapshot.unrouted.cell == board.route_at(0)
    assert snapshot.upstreams["web"].cell == board.upstream_at(1)
    assert [target.cell for target in snapshot.upstreams["api"].targets] == [board.target_at(0), board.target_at(1)]


def test_workers_begin_with_different_targets() -> None:
    routes = {"api": {"hosts": ["*"], "upstream": "api"}}
    upstreams = {"api": {"targets": ["http://127.0.0.1:8000", "http://127.0.0.1:8001"]}}
    first = [Worker(slot).build(document(routes, upstreams)).upstreams["api"].pick(X) for slot in range(2)]
    assert [target.port for target in first if target] == [8000, 8001]


def test_a_configuration_without_routes_can_be_served() -> None:
    snapshot = Worker().build(document({}, {}))
    assert snapshot.routes.levels(b"a") == ()


# --- from one to the next --------------------------------------------------------------------------------------------


def changed(path: str, value: Any) -> dict[str, Any]:
    """The upstreams with one value changed."""
    upstreams = copy.deepcopy(UPSTREAMS)
    node = upstreams
    *keys, last = path.split(".")
    for key in keys:
        node = node.setdefault(key, {})
    node[last] = value
    return upstreams


def test_what_did_not_change_stays_alive() -> None:
    worker = Worker()
    before = worker.build(document())
    routes = {"api": {"hosts": ["*"], "upstream": "api"}, "web": ROUTES["web"]}
    after = worker.build(document(routes, generation=2), before)
    assert after.upstreams["api"] is before.upstreams["api"]
    assert after.upstreams["web"] is before.upstreams["web"]
    assert name_of(answer(after, b"x", b"/y")) == "api"
    assert name_of(answer(before, b"api.localhost", b"/v1")) == "api", "an exchange keeps the snapshot it began with"
    assert answer(before, b"x", b"/y") is None


def test_equal_parts_of_two_documents_are_the_same_objects() -> None:
    worker = Worker()
    before = worker.build(document())
    routes = ROUTES | {"web": ROUTES["web"] | {"owner": "team-web"}}
    after = worker.build(document(routes, generation=2), before)
    same = {name for name, options in after.settings.routes.items() if options is before.settings.routes[name]}
    assert same == {"api", "get", "ping"}
    assert all(options is before.settings.upstreams[name] for name, options in after.settings.upstreams.items())
    for host, path, kept in ((b"api.localhost", b"/v1", True), (b"x", b"/ping", True), (b"web.localhost", b"/", False)):
        assert (answer(after, host, path) is answer(before, host, path)) is kept


def test_a_route_goes_to_the_upstream_of_its_own_snapshot() -> None:
    worker = Worker()
    before = worker.build(document())
    after = worker.build(document(upstreams=changed("web.pass_host", value=True), generation=2), before)
    route = answer(after, b"web.localhost", b"/")
    assert route is not None
    assert route.upstream is after.upstreams["web"] is not before.upstreams["web"]
    assert after.settings.routes["web"] is before.settings.routes["web"]


def test_a_route_that_moved_or_missed_a_generation_remembers_nothing_of_its_cells() -> None:
    worker = Worker()
    before = worker.build(document())
    route = answer(before, b"web.localhost", b"/")
    missed = worker.build(document(generation=3), before)
    assert answer(missed, b"web.localhost", b"/") is not route
    moved = document(generation=2)
    blocks = Blocks(dict(moved.blocks.routes) | {"web": 77}, moved.blocks.upstreams, moved.blocks.targets)
    after = answer(worker.build(Document(2, "dev", "1a2b3c4d", moved.settings, blocks), before), b"web.localhost", b"/")
    assert after is not None
    assert after.cell == worker.scoreboard.route_at(77)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("api.targets", ["http://127.0.0.1:8000"]),
        ("api.targets", [{"url": "http://127.0.0.1:8000", "weight": 3}, "http://127.0.0.1:8001/base"]),
        ("api.timeouts.response", "5s"),
        ("api.pool.max_connections", 7),
        ("api.retries.attempts", 1),
        ("api.pass_host", False),
    ],
)
def test_what_changed_begins_anew_and_the_rest_stays(path: str, value: Any) -> None:
    worker = Worker()
    before = worker.build(document())
    after = worker.build(document(upstreams=changed(path, value), generation=2), before)
    assert after.upstreams["api"] is not before.upstreams["api"]
    assert after.upstreams["web"] is before.upstreams["web"]


def test_what_moved_to_another_block_begins_anew() -> None:
    worker = Worker()
    published = document()
    before = worker.build(published)
    moved = document(generation=2)
    blocks = Blocks(moved.blocks.routes, {"api": 9, "web": 1}, moved.blocks.targets)
    after = worker.build(Document(2, "dev", "1a2b3c4d", moved.settings, blocks), before)
    assert after.upstreams["api"] is not before.upstreams["api"]
    assert after.upstreams["api"].cell == worker.scoreboard.upstream_at(9)


def test_a_target_that_moved_to_another_block_counts_there() -> None:
    worker = Worker()
    before = worker.build(document())
    moved = document(generation=2)
    targets = dict(moved.blocks.targets) | {target_key("web", "unix:/run/web.sock"): 9}
    blocks = Blocks(moved.blocks.routes, moved.blocks.upstreams, targets)
    after = worker.build(Document(2, "dev", "1a2b3c4d", moved.settings, blocks), before)
    assert after.upstreams["web"].targets[0].cell == worker.scoreboard.target_at(9)


def test_building_leaves_the_loop_its_turns() -> None:
    routes = {f"r{number}": {"hosts": [f"r{number}.localhost"], "upstream": "api"} for number in range(500)}
    published = document(routes)
    turns = 0

    async def build() -> Snapshot:
        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        snapshot = await Worker().builder.build(Outline.read(published.text()), None)
        counting.cancel()
        return snapshot

    snapshot = asyncio.run(build())
    assert turns >= 5
    assert name_of(answer(snapshot, b"r499.localhost", b"/")) == "r499"


def test_a_match_is_what_the_options_say() -> None:
    settings = Settings.model_validate(document().settings)
    match = match_of(settings.routes["get"])
    assert (match.name, match.hosts, match.path) == ("get", ("api.localhost",), "/v1")
    assert (match.methods, match.headers, match.conditions) == (frozenset({"GET"}), (("x-team", "blue"),), 2)
