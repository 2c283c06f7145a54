"""What is settled at a start or a fork: closed streams, ill-timed signals, variables meant for other servers."""

import os
import signal
import sys
from types import FrameType
from typing import Final

# What hosts set for other servers. gunicorn and uvicorn take defaults from them, and fail on some values.
FOREIGN_VARIABLES: Final = ("FORWARDED_ALLOW_IPS", "PORT", "SENDFILE", "WEB_CONCURRENCY")

# What libraries read while they run: the loader, the interpreter, the resolver, OpenSSL, the clock.
_KEPT: Final = frozenset(("HOME", "HOSTALIASES", "LANG", "LOCALDOMAIN", "PATH", "RES_OPTIONS", "TMPDIR", "TZ", "TZDIR"))
_KEPT_PREFIXES: Final = ("GLIBC_", "LC_", "LD_", "MALLOC_", "OPENSSL_", "PYTHON", "SSL", "UVLOOP_")

_HELD: Final = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

# What a terminal, a supervisor or an operator who means the master sends to every process there is.
_FOR_THE_MASTER: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
)


def open_missing_streams() -> None:
    """Open /dev/null in place of standard input, output and error that are closed; to be called first of all.

    Otherwise the next files that are opened, sockets perhaps, get their numbers, and whatever is written to stdout or
    stderr goes there.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free, which is this
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 -- for as long as the process lives


def hold_signals() -> None:
    """Block signals, around a fork and while a process ends.

    A child still has its master's handlers, which would put the signal into a queue that nobody reads. It lets what has
    waited through with `release_signals` once it has handlers of its own.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


def release_signals() -> None:
    """Unblock signals; those that have waited are delivered."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


def leave_group_signals_to_master() -> None:
    """Replace the handlers that a fork has from the master: ignore what is meant for it, and leave on QUIT.

    For the processes beside the workers, which the master stops when it has no more use for them.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in _FOR_THE_MASTER:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, _leave)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


def forget_variables() -> None:
    """Take out of the environment what no process but the master needs: it may hold what only the master may know.

    Configuration files may refer to any variable, tokens and passwords among them; so what stays is a list.
    """
    for name in list(os.environ):
        if name not in _KEPT and not name.startswith(_KEPT_PREFIXES):
            del os.environ[name]
