"""What a fork must settle: signals that come at the wrong moment, and variables that are meant for other servers."""

import os
import signal
from typing import Final

# What hosts set for other servers. gunicorn and uvicorn take defaults from them, and fail on some values.
FOREIGN_VARIABLES: Final = ("FORWARDED_ALLOW_IPS", "PORT", "SENDFILE", "WEB_CONCURRENCY")

_HELD: Final = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def hold_signals() -> None:
    """Let signals wait, around a fork and while a process ends.

    A child still has its master's handlers, which would put the signal into a queue that nobody reads. It lets what has
    waited through with `release_signals` once it has handlers of its own.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


def release_signals() -> None:
    """Let signals through, and those that have waited."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


def forget_foreign_variables() -> None:
    """Take them out of the environment. Not for the master: configuration files may refer to them."""
    for name in FOREIGN_VARIABLES:
        os.environ.pop(name, None)
