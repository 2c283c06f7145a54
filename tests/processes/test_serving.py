"""A gateway kept serving without a worker process around it: in this one, by a loop of ours, over real sockets."""

import asyncio
import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvloop

from devhost_server.config import Sources, load
from devhost_server.config.models import Settings
from devhost_server.doors.http1 import ClientConnection
from devhost_server.observe.options import LogOptions
from devhost_server.processes.reload import Reloader
from devhost_server.processes.serving import Serving
from devhost_server.shared.board import Board, Capacity, Scoreboard, Slot, TargetCell, WorkerState
from devhost_server.shared.publication import Document, Publication
from devhost_server.snapshot import Document as Published
from tests.support.waiting import patient


async def until(condition: Callable[[], object], what: str) -> None:
    """Let the loop turn until `condition` holds."""
    last = time.monotonic() + patient(5)
    while not condition():
        assert time.monotonic() < last, f"{what} did not come"
        await asyncio.sleep(0.005)


class App:
    """A server behind the gateway: it answers `/NAME` by that name, and `/later` when it is told to."""

    def __init__(self) -> None:
        self.port = 0
        self.made = self.open = 0  # connections
        self.asked: list[bytes] = []
        self.later = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.made += 1
        self.open += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ")[1]
                self.asked.append(path)
                if path == b"/later":
                    await self.later.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))
        self.open -= 1
        writer.close()


@contextlib.asynccontextmanager
async def app() -> AsyncIterator[App]:
    made = App()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.later.set()


class Embedded:
    """A gateway in this process: what a worker is, without the process."""

    def __init__(self, directory: Path, options: dict[str, Any]) -> None:
        self.log = directory / "access.log"
        self.file = directory / "gateway.json"
        self.write(options)
        sources = Sources.from_options("dev", None, (str(self.file),), (f"log.access={self.log}", "admin.bind=null"))
        self.scoreboard = Scoreboard(Capacity(1, 16, 16, 16))
        self.board, self.row = self.scoreboard.board, self.scoreboard.row(0)
        self.publication = Publication(self.scoreboard)
        self.reloader = Reloader(sources, load(sources), "1a2b3c4d", self.scoreboard, self.publication)
        self.configured: list[LogOptions] = []
        loop = asyncio.get_running_loop()
        self.serving = Serving(
            self.scoreboard,
            0,
            self.read,
            clock=loop.time,
            soon=loop.call_soon,
            configure_logs=self.configured.append,
        )
        self.reads = 0
        self.port = 0

    def read(self) -> bytes | None:
        self.reads += 1
        return self.publication.read(Document.SNAPSHOT)

    def write(self, options: dict[str, Any]) -> None:
        self.file.write_text(json.dumps({"domain": "localhost"} | options))

    async def reload(self, options: dict[str, Any]) -> None:
        """Reload as a master does, until this "worker" has confirmed it."""
        self.write(options)
        self.reloader.begin(time.monotonic(), "signal")
        assert self.reloader.pending, self.reloader.last
        await until(lambda: self.reloader.poll(time.monotonic()), "the new generation")
        assert self.reloader.last is not None
        assert self.reloader.last.result == "ok", self.reloader.last

    async def ask(self, host: str, path: str = "/", *, status: int = 200) -> bytes:
        """Return the body of the answer to a request on a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}.localhost\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (await asyncio.wait_for(reader.read(), patient(5))).partition(b"\r\n\r\n")
        finally:
            writer.close()
        assert head.startswith(b"HTTP/1.1 %d " % status), head
        return body

    def logged(self) -> list[str]:
        """Return the targets of the requests in the access log."""
        return [json.loads(line)["target"] for line in self.log.read_text().splitlines()]


@contextlib.asynccontextmanager
async def embedded(directory: Path, options: dict[str, Any], *, ticking: bool = True) -> AsyncIterator[Embedded]:
    site = Embedded(directory, options)
    serving, loop = site.serving, asyncio.get_running_loop()
    await serving.start()
    site.row[Slot.STATE] = WorkerState.READY
    config = cast("Any", SimpleNamespace(app=serving.gateway))
    server = await loop.create_server(lambda: ClientConnection(config, cast("Any", None), {}), "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    serving.gateway.clients.listen({server.sockets[0].getsockname(): 0})
    ticks = loop.create_task(serving.run()) if ticking else None
    try:
        yield site
    finally:
        server.close()
        site.board[Board.CUT_NOW] = 1
        await serving.drain()
        if ticks is not None:
            ticks.cancel()
        await serving.close()


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scene(), patient(20))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """What the part under test logs, whatever becomes of it elsewhere."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, listener = logging.getLogger("devhost_server.processes.serving"), Listener()
    logger.addHandler(listener)
    propagate, logger.propagate = logger.propagate, False
    yield said
    logger.removeHandler(listener)
    logger.propagate = propagate


def to(**parts: App | dict[str, Any]) -> dict[str, Any]:
    """A route and an upstream of these names to each app; what is no app is a route."""
    upstreams, routes = {}, {}
    for name, part in parts.items():
        if isinstance(part, App):
            upstreams[name] = {"targets": [f"http://127.0.0.1:{part.port}"]}
        routes[name] = {"upstream": name} if isinstance(part, App) else part
    return {"upstreams": upstreams, "routes": routes}


# --- reloads ---------------------------------------------------------------------------------------------------------


def test_a_reload_keeps_the_live_state_of_what_is_equal_and_retires_the_rest(tmp_path: Path) -> None:
    async def scene() -> None:
        async with app() as same, app() as other, embedded(tmp_path, to(same=same, other=other)) as site:
            assert await site.ask("same") == await site.ask("other") == b"/"
            before = site.serving.gateway.snapshot
            options = to(same=same, other=other)
            options["upstreams"]["other"]["timeouts"] = {"connect": "7s"}
            await site.reload(options)
            after = site.serving.gateway.snapshot
            assert (before.generation, after.generation, site.row[Slot.GENERATION]) == (1, 2, 2)
            await until(lambda: other.open == 0, "the end of the idle connection of the old upstream")
            assert await site.ask("same") == await site.ask("other") == b"/"
            assert (same.made, other.made) == (1, 2)
            kept = {name for name, upstream in after.upstreams.items() if upstream is before.upstreams[name]}
            assert kept == {"same"}

    play(scene)


def test_an_exchange_ends_with_the_upstream_that_it_began_with_and_its_connection_is_not_kept(tmp_path: Path) -> None:
    async def scene() -> None:
        async with app() as gone, app() as new, embedded(tmp_path, to(site=gone)) as site:
            asking = asyncio.create_task(site.ask("site", "/later"))
            await until(lambda: gone.asked, "the request")
            await site.reload(to(site=new))
            assert await site.ask("site", "/new") == b"/new"
            assert (gone.open, new.asked) == (1, [b"/new"])
            gone.later.set()
            assert await asking == b"/later"
            await until(lambda: gone.open == 0, "the end of its connection")
            await until(lambda: not site.serving._retired, "the end of the account of it")

    play(scene)


def test_who_is_new_begins_with_the_latest(tmp_path: Path) -> None:
    """Something is published while the first document is being built."""

    class Late(Embedded):
        def read(self) -> bytes | None:
            text = super().read()
            if self.reads == 1:
                self.write(to(site={"host": "*", "respond": {"status": 200, "body": "second"}}))
                self.reloader.begin(time.monotonic(), "signal")
            return text

    async def scene() -> None:
        site = Late(tmp_path, to(site={"host": "*", "respond": {"status": 200, "body": "first"}}))
        await site.serving.start()
        assert repr(site.serving) == "<Serving slot=0 generation=2>"
        assert site.reads == 2
        await site.serving.close()

    play(scene)


def test_what_is_being_published_is_waited_for(tmp_path: Path) -> None:
    class Overtaken(Embedded):
        def read(self) -> bytes | None:
            text = super().read()
            return text if self.reads > 2 else None

    async def scene() -> None:
        site = Overtaken(tmp_path, to(site={"respond": {"status": 204}}))
        await site.serving.start()
        assert (site.reads, site.row[Slot.GENERATION]) == (3, 1)
        await site.serving.close()

    play(scene)


def nonsense(_: Embedded) -> bytes:
    return b"{"


def changed(site: Embedded, section: str, key: str, value: Any) -> bytes:
    text = site.publication.read(Document.SNAPSHOT)
    assert text is not None
    document = Published.parse(text)
    document.settings[section][key] = value
    return replace(document, generation=2).text()


def invalid(site: Embedded) -> bytes:
    return changed(site, "server", "limits", {"connections": "many"})


def invalid_route(site: Embedded) -> bytes:
    return changed(site, "routes", "site", {"name": "site"})


def unwritable(site: Embedded) -> bytes:
    return changed(site, "log", "access", "/nowhere/at/all.log")


@pytest.mark.parametrize("document", [nonsense, invalid, invalid_route, unwritable])
def test_a_document_that_cannot_be_served_is_told_and_the_one_before_goes_on(
    tmp_path: Path, complaints: list[str], document: Callable[[Embedded], bytes]
) -> None:
    async def scene() -> None:
        async with app() as server, embedded(tmp_path, to(site=server)) as site:
            assert await site.ask("site") == b"/"
            snapshot, log = site.serving.gateway.snapshot, site.serving.gateway.accounts.log
            site.publication.write(Document.SNAPSHOT, document(site))
            site.board[Board.GENERATION] = 2
            await until(lambda: site.row[Slot.REJECTED] == 2, "the refusal")
            reads, ticks = site.reads, site.serving.ticks
            await until(lambda: site.serving.ticks >= ticks + 3, "three ticks")
            assert site.reads == reads, "once is enough"
            assert len(complaints) == 1
            assert complaints[0].startswith("worker 0: generation 2 cannot be served")
            assert site.serving.gateway.snapshot is snapshot
            assert site.serving.gateway.accounts.log is log
            assert await site.ask("site", "/still") == b"/still"
            assert server.made == 1
            site.reloader._publish(site.reloader.settings, 3)
            await until(lambda: site.row[Slot.GENERATION] == 3, "the next one")

    play(scene)


def test_the_first_document_has_to_be_sound(tmp_path: Path) -> None:
    async def scene() -> None:
        site = Embedded(tmp_path, to(site={"respond": {"status": 204}}))
        site.publication.write(Document.SNAPSHOT, b"{")
        with pytest.raises(ValueError, match="not in list"):
            await site.serving.start()

    play(scene)


def test_two_who_want_a_reload_get_the_same_one(tmp_path: Path) -> None:
    async def scene() -> None:
        async with embedded(tmp_path, to(site={"respond": {"status": 204}}), ticking=False) as site:
            reads = site.reads
            await asyncio.gather(site.serving.reload(), site.serving.reload())
            assert site.reads == reads + 1

    play(scene)


# --- the log ---------------------------------------------------------------------------------------------------------


def test_a_tick_writes_the_log_out(tmp_path: Path) -> None:
    async def scene() -> None:
        async with app() as server, embedded(tmp_path, to(site=server), ticking=False) as site:
            await site.ask("site", "/one")
            await site.ask("site", "/two")
            assert site.logged() == []
            site.serving.tick()
            assert site.logged() == ["/one", "/two"]

    play(scene)


def test_a_log_that_was_rotated_is_opened_anew(tmp_path: Path) -> None:
    async def scene() -> None:
        async with app() as server, embedded(tmp_path, to(site=server), ticking=False) as site:
            await site.ask("site", "/one")
            old = site.log.rename(tmp_path / "old.log")
            site.board[Board.REOPEN_LOGS] += 1
            site.serving.tick()
            await site.ask("site", "/two")
            site.serving.tick()
            assert site.logged() == ["/two"]
            assert len(old.read_text().splitlines()) == 1

    play(scene)


def test_a_reload_takes_the_log_elsewhere_and_tells_who_configures_the_process(tmp_path: Path) -> None:
    def elsewhere(site: Embedded) -> Settings:
        options = {"access": str(tmp_path / "other.log"), "level": "error"}
        settings = site.reloader.settings
        return settings.model_copy(update={"log": settings.log.model_copy(update=options)})

    async def scene() -> None:
        async with app() as server, embedded(tmp_path, to(site=server)) as site:
            await site.ask("site", "/one")
            await site.reload(to(site=server))
            assert site.configured == []
            site.reloader._publish(elsewhere(site), 3)
            await until(lambda: site.row[Slot.GENERATION] == 3, "the new generation")
            await site.ask("site", "/two")
            assert [options.level for options in site.configured] == ["error"]
        assert site.logged() == ["/one"]
        assert '"target":"/two"' in (tmp_path / "other.log").read_text()

    play(scene)


def test_closing_loses_no_line_of_a_log_with_a_slow_reader(tmp_path: Path) -> None:
    """A pipe takes 64 KiB; its reader begins when it is full."""
    pipe, count = tmp_path / "access.log", 400
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    got = bytearray()

    def drain() -> None:
        os.set_blocking(reading, True)
        while piece := os.read(reading, 8192):
            got.extend(piece)
            time.sleep(0.001)  # a reader that is slow

    async def scene() -> None:
        async with app() as server, embedded(tmp_path, to(site=server)) as site:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            for number in range(count):
                writer.write(f"GET /{number} HTTP/1.1\r\nHost: site.localhost\r\n\r\n".encode())
                assert await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(len(f"/{number}"))
            writer.close()
            assert site.serving.gateway.accounts.log.held
            thread.start()
        assert site.row[Slot.LOG_DROPPED] == 0

    thread = threading.Thread(target=drain, daemon=True)
    play(scene)
    thread.join()
    os.close(reading)
    assert [json.loads(line)["target"] for line in got.splitlines()] == [f"/{number}" for number in range(count)]


# --- the tick and the end --------------------------------------------------------------------------------------------


def test_an_error_in_a_tick_does_not_end_the_ticking(tmp_path: Path, complaints: list[str]) -> None:
    async def scene() -> None:
        async with embedded(tmp_path, to(site={"respond": {"status": 204}}), ticking=False) as site:
            also = iter((1, 0, 1))
            running = asyncio.create_task(site.serving.run(lambda: print(1 // next(also))))
            await until(lambda: site.serving.ticks >= 3, "the third tick")
            running.cancel()
            assert complaints == ["worker 0: the tick failed"]

    play(scene)


def test_a_tick_shows_what_only_this_process_knows_and_every_second_what_takes_longer(tmp_path: Path) -> None:
    async def scene() -> None:
        async with app() as server, embedded(tmp_path, to(site=server), ticking=False) as site:
            asking = asyncio.create_task(site.ask("site", "/later"))
            await until(lambda: server.asked, "the request")
            active = site.serving.gateway.snapshot.upstreams["site"].targets[0].cell + TargetCell.ACTIVE
            site.serving.tick()
            assert (site.row[Slot.IN_FLIGHT], site.row[active]) == (1, 0)
            for _ in range(19):
                site.serving.tick()
            assert (site.row[Slot.LISTENERS], site.row[active]) == (1, 1)
            server.later.set()
            await asking

    play(scene)


def test_a_drain_waits_for_what_is_in_flight_until_it_is_to_stop_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with app() as server, embedded(tmp_path, to(site=server)) as site:
            first = asyncio.create_task(site.ask("site", "/later"))
            await until(lambda: server.asked, "the request")
            draining = asyncio.create_task(site.serving.drain())
            await until(lambda: site.serving.gateway.clients.draining, "the drain")
            server.later.set()
            assert await first == b"/later"
            await draining
            server.later.clear()
            second = asyncio.create_task(site.ask("site", "/later", status=503))
            await until(lambda: len(server.asked) == 2, "the request")
            draining = asyncio.create_task(site.serving.drain())
            await asyncio.sleep(0)
            site.board[Board.CUT_NOW] = 1
            assert b'"DR"' in await second
            await draining
            await until(lambda: site.row[Slot.DRAIN_CUT] == 1, "the count")
            assert site.row[Slot.DRAIN_FINISHED] == 1

    play(scene)


def test_closing_ends_the_connections_to_targets(tmp_path: Path) -> None:
    async def scene() -> None:
        async with app() as server:
            async with embedded(tmp_path, to(site=server)) as site:
                await site.ask("site")
                assert server.open == 1
            await until(lambda: server.open == 0, "the end of the idle connection")
            assert site.logged() == ["/"]

    play(scene)


def test_aborting_waits_for_nothing_and_keeps_the_log(tmp_path: Path) -> None:
    async def scene() -> None:
        async with app() as server, embedded(tmp_path, to(site=server)) as site:
            asking = asyncio.create_task(site.ask("site", "/later", status=503))
            await until(lambda: server.asked, "the request")
            site.serving.abort()
            assert site.logged() == ["/later"]
            await asking

    play(scene)


def test_a_few_lines_compose_it(tmp_path: Path) -> None:
    """As the module's docstring says, with a document that nobody publishes."""

    async def scene() -> None:
        site = Embedded(tmp_path, to(site={"respond": {"status": 204}}))
        document = site.publication.read(Document.SNAPSHOT)
        loop, scoreboard = asyncio.get_running_loop(), Scoreboard(Capacity(1, 2, 1, 1))
        serving = Serving(scoreboard, 0, partial(bytes, document or b""), clock=loop.time, soon=loop.call_soon)
        await serving.start()
        ticking = loop.create_task(serving.run())
        await until(lambda: serving.ticks, "a tick")
        await serving.drain()
        ticking.cancel()
        await serving.close()
        assert scoreboard.row(0)[Slot.GENERATION] == 1

    play(scene)
