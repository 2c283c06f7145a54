"""What a fork must settle: signals that come at the wrong moment, and variables that are meant for other servers."""

import os
import signal
from types import FrameType
from typing import Final

# What hosts set for other servers. gunicorn and uvicorn take defaults from them, and fail on some values.
FOREIGN_VARIABLES: Final = ("FORWARDED_ALLOW_IPS", "PORT", "SENDFILE", "WEB_CONCURRENCY")

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


def hold_signals() -> None:
    """Let signals wait, around a fork and while a process ends.

    A child still has its master's handlers, which would put the signal into a queue that nobody reads. It lets what has
    waited through with `release_signals` once it has handlers of its own.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


def release_signals() -> None:
    """Let signals through, and those that have waited."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


def leave_group_signals_to_master() -> None:
    """Give up the handlers that a fork has from the master: ignore what is meant for it, and leave on QUIT.

    For the processes beside the workers, which the master stops when it has no more use for them.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in _FOR_THE_MASTER:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, _leave)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


def forget_foreign_variables() -> None:
    """Take them out of the environment. Not for the master: configuration files may refer to them."""
    for name in FOREIGN_VARIABLES:
        os.environ.pop(name, None)
