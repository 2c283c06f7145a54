"""The start of a gateway: everything that is made before the first fork."""

import contextlib
import gc
import logging
import os
import resource
import secrets
import time
from functools import partial
from typing import Final

from devhost_server import __version__, echo
from devhost_server.admin.guard import Keys, own_names
from devhost_server.config import Loaded, Settings, Sources
from devhost_server.observe import logs
from devhost_server.observe.access_log import AccessLogError, check_destination, keep_open
from devhost_server.processes import control
from devhost_server.processes.application import GatewayApplication
from devhost_server.processes.companions import Companion
from devhost_server.processes.cores import worker_count
from devhost_server.processes.identity import Identity, IdentityError
from devhost_server.processes.listeners import Listeners
from devhost_server.processes.master import EXIT_FAILED, HEARTBEAT, Master
from devhost_server.processes.preload import preload
from devhost_server.processes.reload import Reloader
from devhost_server.shared.board import Board, Capacity, Scoreboard
from devhost_server.shared.publication import Publication
from devhost_server.sockets.listeners import ListenError

_log = logging.getLogger("devhost_server.processes.master")

# Room on the scoreboard for so many routes, upstreams and targets, whatever the configuration has.
_CAPACITY_MIN: Final = 1024


def run(sources: Sources, loaded: Loaded, *, heartbeat: float = HEARTBEAT) -> int:
    """Run a gateway in the foreground until it is stopped; return the exit code.

    A worker that gives no sign of life for `heartbeat` seconds is taken to hang.
    """
    settings = loaded.settings
    logs.configure(settings.log)
    _raise_file_limit()
    try:
        identity = _identity(settings.server.user)
        prepare_log = partial(_prepare_log, identity)
        prepare_log(settings.log.access)
        listeners = Listeners.listen(settings)
    except (AccessLogError, IdentityError, ListenError) as error:
        _log.error("%s", error)
        return EXIT_FAILED
    workers = worker_count(settings.server.workers)
    scoreboard = Scoreboard(_capacity(settings, workers))
    publication = Publication(scoreboard)
    scoreboard.board[Board.STARTED_AT] = time.time_ns() // 1000
    reloader = Reloader(sources, loaded, secrets.token_hex(4), scoreboard, publication, prepare_log)
    application = GatewayApplication(settings, scoreboard, publication, workers)
    companions = _companions(settings, scoreboard, publication, listeners, identity)
    master = Master(application, scoreboard, reloader, listeners, companions, identity, heartbeat)
    preload()
    _say_who_runs(settings.server.user)
    # What is loaded by now is never collected again, so the pages it lies on stay shared with every fork.
    gc.collect()
    gc.freeze()
    return master.run()


def _identity(user: str | None) -> Identity | None:
    """Return the user that the other processes become, or None if they keep their own. Raises `IdentityError`."""
    if user is None or os.geteuid():
        return None
    try:
        return Identity.find(user)
    except IdentityError as error:
        raise IdentityError(f"server.user: {error}") from None


def _prepare_log(identity: Identity | None, destination: str | None) -> None:
    """Make sure that workers can open the access log, or find it open. Raises `AccessLogError`.

    It is tried as their user first: they could not open a file that root has made.
    """
    if identity is not None and identity.can(lambda: check_destination(destination)):
        return
    check_destination(destination)
    if identity is not None:
        keep_open(destination)
        _log.warning(
            "log.access: %s may not open %s, so root has opened it: workers that run cannot follow a rotation; "
            "give the folder to %s",
            identity.name,
            destination,
            identity.name,
        )


def _say_who_runs(user: str | None) -> None:
    if user is None and not os.geteuid():
        _log.info(
            "running as root: whoever takes over any of these processes has the machine; set server.user to the user "
            "that workers and the admin listener are to become"
        )
    elif user is not None and os.geteuid():
        _log.warning("server.user is ignored: only what was started as root can become %s", user)


def _raise_file_limit() -> None:
    """Raise the limit of open files as far as allowed. A connection takes one file descriptor on either side."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _capacity(settings: Settings, workers: int) -> Capacity:
    """Return room for twice the workers and four times the configuration. Memory is spent only on use."""
    targets = sum(len(upstream.targets) for upstream in settings.upstreams.values())
    return Capacity(
        slots=max(2 * workers, 16),
        routes=max(4 * len(settings.routes), _CAPACITY_MIN),
        upstreams=max(4 * len(settings.upstreams), _CAPACITY_MIN),
        targets=max(4 * targets, _CAPACITY_MIN),
    )


def _companions(
    settings: Settings,
    scoreboard: Scoreboard,
    publication: Publication,
    listeners: Listeners,
    identity: Identity | None,
) -> list[Companion]:
    """Return the processes that run beside the workers."""
    admin = settings.admin
    keys, names = Keys.of(admin.token, admin.tokens), own_names(admin.bind, admin.hosts)
    context = control.ControlContext(scoreboard, publication, listeners.admin, keys, names, __version__, os.getpid())

    def run_control() -> None:
        listeners.close_but(listeners.admin)
        if identity is not None:
            identity.become()
        control.run(context)

    def run_echo() -> None:
        listeners.close_but(listeners.echo)
        if identity is not None:
            identity.become()
        if listeners.echo is not None:
            echo.serve(listeners.echo, parent=context.master_pid)

    companions = [Companion("control", run_control)]
    return companions if listeners.echo is None else [*companions, Companion("echo", run_echo)]
