"""What a reload costs a worker at 10,000 routes, and for how long it keeps the event loop from the traffic."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from devhost_server.config.models import Settings
from devhost_server.shared.board import Capacity, Scoreboard
from devhost_server.snapshot import Builder, Document, Outline, Snapshot
from devhost_server.timing.deadlines import Wheel
from tests.test_snapshot import document

ROUTES = 10_000


def published(generation: int, *, owner: str = "team", changed: int = 0) -> Document:
    """Ten thousand routes, each to an upstream of its own; the first `changed` of them belong to `owner`."""
    routes: dict[str, Any] = {}
    upstreams: dict[str, Any] = {}
    for number in range(ROUTES):
        name = f"r{number}"
        whose = owner if number < changed else "team"
        routes[name] = {"hosts": [f"{name}.localhost"], "upstream": name, "owner": whose}
        upstreams[name] = {"targets": [f"http://127.0.0.1:{1024 + number}"]}
    return document(routes, upstreams, generation=generation)


@pytest.fixture(scope="module")
def texts() -> dict[str, bytes]:
    """What is published by a reload that changes one route, and by one that changes all."""
    return {
        "first": published(1).text(),
        "one": published(2, owner="other", changed=1).text(),
        "all": published(2, owner="other", changed=ROUTES).text(),
    }


@pytest.fixture(autouse=True)
def collected_as_in_a_worker() -> Iterator[None]:
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


async def longest_slice(work: Callable[[], Awaitable[object]]) -> float:
    """Return for how many seconds of processor time the loop went without a turn while `work` was being done."""
    longest, last = 0.0, time.thread_time()

    async def watch() -> None:
        nonlocal longest, last
        while True:
            now = time.thread_time()
            longest, last = max(longest, now - last), now
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await work()
    await asyncio.sleep(0)
    watching.cancel()
    return longest


class Reloading:
    """A builder that has built the first document."""

    def __init__(self, texts: dict[str, bytes]) -> None:
        scoreboard = Scoreboard(Capacity(1, ROUTES + 9, ROUTES + 9, ROUTES + 9))
        self.texts = texts
        self.builder = Builder(scoreboard, 0, Wheel(lambda: 0.0))
        self.first = asyncio.run(self.build("first", None))

    async def build(self, name: str, previous: Snapshot | None) -> Snapshot:
        return await self.builder.build(Outline.read(self.texts[name]), previous)


@pytest.fixture(scope="module")
def reloading(texts: dict[str, bytes]) -> Reloading:
    return Reloading(texts)


def checked_whole(texts: dict[str, bytes]) -> Settings:
    return Settings.model_validate(Document.parse(texts["all"]).settings)


@pytest.mark.benchmark(group=f"a reload of {ROUTES:,} routes")
@pytest.mark.parametrize("way", ["one changed", "all changed", "parsed and checked as a whole"])
def test_a_reload_costs_what_it_changes(
    benchmark: Any, texts: dict[str, bytes], reloading: Reloading, way: str
) -> None:
    """Lines that were there before save parsing and checking their parts; the last row is what that alone took."""
    if way not in ("one changed", "all changed"):
        assert len(benchmark.pedantic(checked_whole, (texts,), rounds=3).routes) == ROUTES
        return
    name = way.partition(" ")[0]
    after = benchmark.pedantic(lambda: asyncio.run(reloading.build(name, reloading.first)), rounds=3)
    assert after.settings == checked_whole({"all": texts[name]})
    assert after.upstreams == reloading.first.upstreams


@pytest.mark.parametrize("name", ["one", "all"])
def test_no_slice_of_a_reload_is_long(texts: dict[str, bytes], reloading: Reloading, name: str) -> None:
    """What is promised is 10 ms on a quiet machine, where checking the document as a whole takes some 300. The test's
    bound is a tenth of that same check, so that it holds on a busy one too, and the best of three counts.
    """
    began = time.thread_time()
    checked_whole(texts)
    whole = time.thread_time() - began
    slices: list[float] = []
    while len(slices) < 3 and min(slices, default=whole) >= whole / 10:
        slices.append(asyncio.run(longest_slice(lambda: reloading.build(name, reloading.first))))
    assert min(slices) < whole / 10, (slices, whole)
