"""The admin listener's application: health, metrics and the API, a Starlette app of the control process.

It reads the scoreboard and the published documents. What it changes, it asks the master for: a reload by a number on
the board row and SIGHUP, a drain by SIGTERM.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from devhost_server.admin import documents, guard
from devhost_server.admin.refusals import WrongTokens
from devhost_server.admin.replies import Edition, ProblemError, answer, json_answer
from devhost_server.admin.scrapes import Scrapes
from devhost_server.observe.metrics import Scrape, content_type, render, wants_openmetrics
from devhost_server.observe.processes import Usages
from devhost_server.observe.view import Reader, View
from devhost_server.shared.board import Board, Scoreboard, Slot
from devhost_server.shared.publication import Publication

# The process is at nice 5; a scrape, which nobody waits for, is to hold up nothing: 19 gives way to everything.
_RENDERING_NICENESS: Final = 19
# A reload is heard of within one poll; the bound is what a master takes at the very most, with slow disks and workers.
RELOAD_POLL: Final = 0.02
RELOAD_BOUND: Final = 30.0

_PATH_SHOWN: Final = 100

# Who has changed something.
audit: Final = logging.getLogger("devhost_server.admin.audit")
audit.setLevel(logging.INFO)

Endpoint = Callable[[Request], Awaitable[Response]]

# What later versions serve: methods, path, and what is said until then.
UNBUILT: Final = (
    (("GET",), "/", "The dashboard is"),
    (("GET",), "/api/events", "Events are"),
    (("GET",), "/api/events/stream", "Events are"),
    (("POST",), "/api/explain", "Explaining a request is"),
    (("PUT", "DELETE"), "/api/routes/{name}", "Dynamic routes are"),
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the application is told when it starts: `master` is the pid that signals go to."""

    listener: socket.socket
    keys: guard.Keys
    names: frozenset[str]
    version: str
    master: int


@dataclass(eq=False)
class Admin:
    """The endpoints, and the little that they remember."""

    facts: Facts
    scoreboard: Scoreboard
    publication: Publication
    stopping: asyncio.Event
    usages: Usages = field(default_factory=Usages)
    drain_requested: bool = False

    def __post_init__(self) -> None:
        self.reader = Reader(self.scoreboard, self.publication)
        self.scrapes = Scrapes(lambda as_openmetrics: partial(self._render, self.reader.view(), as_openmetrics))
        self.wrong = WrongTokens()

    # --- health ------------------------------------------------------------------------------------------------------

    async def healthz(self, _request: Request) -> Response:
        """Answer while this process lives."""
        return answer(b"ok\n", "text/plain; charset=utf-8")

    async def readyz(self, request: Request) -> Response:
        """Return whether requests should be sent here."""
        view = self.reader.view()
        if view.is_draining():
            raise _not_ready("The gateway is draining: it finishes what it has and takes no new work.")
        if not view.is_serving():
            raise _not_ready("No worker is ready yet.")
        return self._json(request, {"status": "ready", "generation": view.board(Board.GENERATION)})

    # --- reading -----------------------------------------------------------------------------------------------------

    async def metrics(self, request: Request) -> Response:
        """Render the metrics, in a thread: other requests are answered meanwhile."""
        as_openmetrics = wants_openmetrics(",".join(request.headers.getlist("accept")))
        text = await self.scrapes.text(as_openmetrics)
        return answer(text, content_type(as_openmetrics), headers={"Vary": "Accept"})

    def _render(self, view: View, as_openmetrics: bool) -> bytes:
        _step_back()
        usages = self.usages.read({slot: row[Slot.PID] for slot, row in view.workers().items()})
        return render(Scrape(view, usages, self.facts.version), as_openmetrics)

    async def status(self, request: Request) -> Response:
        """Describe the gateway."""
        facts, view, now = self.facts, self.reader.view(), time.time()
        report = self.reader.report()
        document = documents.status(view, report, version=facts.version, master=facts.master, now=now)
        return self._json(request, document)

    async def routes(self, request: Request) -> Response:
        """Describe the routes."""
        return self._json(request, documents.routes(self.reader.view()))

    async def upstreams(self, request: Request) -> Response:
        """Describe the upstreams."""
        view = self.reader.view()
        return self._json(request, {"generation": view.served.generation, "upstreams": documents.upstreams(view)})

    async def config(self, request: Request) -> Response:
        """Return the configuration that is served."""
        return self._json(request, documents.config(self.reader.view()))

    def _edition(self) -> Edition:
        served = self.reader.view().served
        return Edition(served.instance, served.generation)

    def _json(self, request: Request, content: object, status: int = 200) -> Response:
        return json_answer(request, content, self._edition(), status)

    # --- changing ----------------------------------------------------------------------------------------------------

    async def reload(self, request: Request) -> Response:
        """Have the configuration read again, and answer with how that went."""
        if self._is_stopping():
            raise _not_ready("The gateway is stopping and does not reload any more.")
        self._demand_edition(request)
        report = documents.reload(await self._reloaded())
        if report["result"] == "ok":
            return self._json(request, report)
        raise ProblemError(422, "The configuration was not accepted; the one before still serves.", members=report)

    async def _reloaded(self) -> documents.Json:
        board = self.scoreboard.board
        board[Board.RELOAD_REQUESTS] += 1
        mine = board[Board.RELOAD_REQUESTS]
        self._signal(signal.SIGHUP)
        deadline = time.monotonic() + RELOAD_BOUND
        while time.monotonic() < deadline:
            if board[Board.RELOAD_SERVED] >= mine and (report := self.reader.report()) is not None:
                return report
            if self._is_stopping():
                raise _not_ready("The gateway began to stop before the reload was done.")
            await asyncio.sleep(RELOAD_POLL)
        raise ProblemError(504, f"The master did not finish the reload within {RELOAD_BOUND:g} s; see its log.")

    async def drain(self, request: Request) -> Response:
        """Begin a graceful stop. Asked again, it does nothing: a second signal would cut what is in flight."""
        self._demand_edition(request)
        if not self.drain_requested and not self._is_draining():
            self._signal(signal.SIGTERM)
        self.drain_requested = True
        return self._json(request, {"state": "draining"}, status=202)

    def _demand_edition(self, request: Request) -> None:
        """Refuse a change that was meant for another configuration than the one that is served (RFC 9110 §13.1.1)."""
        edition = self._edition()
        if not edition.is_named(request.headers.getlist("if-match")):
            sentence = f"The gateway serves generation {edition.generation}, which If-Match does not name."
            raise ProblemError(412, sentence, members={"generation": edition.generation})

    def _is_draining(self) -> bool:
        return self.scoreboard.board[Board.DRAINING] != 0

    def _is_stopping(self) -> bool:
        return self.stopping.is_set() or self.drain_requested or self._is_draining()

    def _signal(self, number: int) -> None:
        try:
            os.kill(self.facts.master, number)
        except PermissionError:  # the master is root, and this process is `server.user`: it looks at the board
            self.scoreboard.board[Board.HUPS_ASKED if number == signal.SIGHUP else Board.TERMS_ASKED] += 1
        except ProcessLookupError:
            raise ProblemError(503, "The master is gone; this process ends as well.") from None

    # --- the table ---------------------------------------------------------------------------------------------------

    def endpoints(self) -> dict[tuple[str, str], Endpoint]:
        """Return every endpoint by method and path; GET answers HEAD as well."""
        return {
            ("GET", "/healthz"): self.healthz,
            ("GET", "/readyz"): self.readyz,
            ("GET", "/metrics"): self.metrics,
            ("GET", "/api/status"): self.status,
            ("GET", "/api/routes"): self.routes,
            ("GET", "/api/upstreams"): self.upstreams,
            ("GET", "/api/config"): self.config,
            ("POST", "/api/reload"): self.reload,
            ("POST", "/api/drain"): self.drain,
        }

    def authorise(self, endpoint: Endpoint) -> Endpoint:
        """Wrap an endpoint that changes something: who may, and a line in the log that says who has."""

        async def authorised(request: Request) -> Response:
            headers = request.headers
            if guard.from_another_site(headers.get("sec-fetch-site"), headers.get("origin"), headers.get("host")):
                raise ProblemError(403, "A page of another site may not change this gateway.")
            holder = await self.demand_token(request) if self.facts.keys else None
            actor = guard.actor(holder, headers.get("x-devhost-actor"), peer_of(request))
            # The level may have changed with a reload, which this process takes no part in.
            audit.setLevel(self.reader.view().served.settings.get("log", {}).get("level", "info").upper())
            return await _audited(endpoint, request, actor)

        return authorised

    async def demand_token(self, request: Request) -> guard.Holder:
        """Return whose token a request carries; raise `ProblemError` if it is nobody's."""
        authorization = request.headers.get("authorization")
        holder = self.facts.keys.holder(authorization)
        if holder is not None:
            return holder
        error = ""
        if authorization is not None:
            self.wrong.log(peer_of(request), request.method, request.url.path)
            await self.wrong.wait()
            error = ', error="invalid_token"'
        raise ProblemError(
            401,
            "This needs the token of admin.token, or one of admin.tokens, sent as Authorization: Bearer TOKEN.",
            headers={"WWW-Authenticate": f'Bearer realm="devhost-server"{error}'},
        )

    def application(self) -> ASGIApp:
        """Make the ASGI application."""
        table = self.endpoints()
        served = ", ".join(f"{method} {path}" for method, path in table)
        app = Starlette(
            routes=[
                Route(path, endpoint if method == "GET" else self.authorise(endpoint), methods=[method])
                for (method, path), endpoint in table.items()
            ]
            + [
                Route(
                    path,
                    _unbuilt(what, served) if "GET" in methods else self.authorise(_unbuilt(what, served)),
                    methods=list(methods),
                )
                for methods, path, what in UNBUILT
            ],
            exception_handlers={
                ProblemError: _problem,
                HTTPException: _http_problem(served),
                Exception: _internal,
            },
        )
        app.router.redirect_slashes = False
        listener = self.facts.listener
        is_private = listener.family == socket.AF_UNIX or guard.is_loopback(listener)
        return HostGuard(app if is_private else TokenGuard(app, self), self.facts.names)


class TokenGuard:
    """Refuses requests without a token, where others than this machine can reach the listener.

    But for what load balancers and container platforms probe, and can seldom send a token with: it says no more than
    whether to send requests here.
    """

    PROBES: Final = frozenset(("/healthz", "/readyz"))

    def __init__(self, app: ASGIApp, admin: Admin) -> None:
        self._app = app
        self._admin = admin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["path"] not in self.PROBES:
            try:
                await self._admin.demand_token(Request(scope))
            except ProblemError as error:
                await error.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


class HostGuard:
    """Refuses names that are not the listener's, so that no foreign name can be made to point at it."""

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 421 (RFC 9110 §15.5.20)."""
        hosts = Request(scope).headers.getlist("host")
        if guard.host_allowed(hosts, self._names, is_local=guard.is_local(scope["server"])):
            await self._app(scope, receive, send)
            return
        sentence = (
            "This listener answers to addresses and to the names in admin.hosts; to this machine as localhost too."
        )
        await ProblemError(421, sentence).response()(scope, receive, send)


def peer_of(request: Request) -> str:
    """Return where a request came from, for the log."""
    return "this machine" if request.client is None else request.client.host


async def _audited(endpoint: Endpoint, request: Request, actor: str) -> Response:
    """Wrap an endpoint that changes something: log who asked for the change and how it ended."""
    status = 500
    try:
        response = await endpoint(request)
        status = response.status_code
    except ProblemError as error:
        status = error.status
        raise
    finally:
        path = request.url.path[:_PATH_SHOWN]
        audit.info("%s %s by %s, from %s: %d", request.method, path, actor, peer_of(request), status)
    return response


def _step_back() -> None:
    """Lower the priority of this thread, which renders metrics and nothing else, below the data plane's."""
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _RENDERING_NICENESS)


def _not_ready(sentence: str) -> ProblemError:
    return ProblemError(503, sentence, headers={"Retry-After": "1"})


def _unbuilt(what: str, served: str) -> Endpoint:
    async def refuse(_request: Request) -> Response:
        raise ProblemError(501, f"{what} not built in this version. There are: {served}.")

    return refuse


def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)  # noqa: S101  # what the application registers this handler for
    return error.response()


def _http_problem(served: str) -> Callable[[Request, Exception], Response]:
    def handle(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  # what the application registers this handler for
        sentences = {
            404: f"Nothing is served at {request.url.path}. There are: {served}.",
            405: f"{request.method} is not allowed at {request.url.path}.",
        }
        detail = sentences.get(error.status_code, error.detail)
        return ProblemError(error.status_code, detail, headers=error.headers).response()

    return handle


def _internal(_request: Request, error: Exception) -> Response:
    sentence = f"The control process failed on this request ({type(error).__name__}); its log has the details."
    return ProblemError(500, sentence).response()
