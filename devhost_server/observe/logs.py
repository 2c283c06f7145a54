"""The log of events (not of requests), on stderr: for people on a terminal, JSON lines for machines."""

import logging
import sys
import time
from typing import TYPE_CHECKING, Any, Final, TextIO

import orjson
from gunicorn.glogging import Logger

from devhost_server.visible import visible, visible_json

if TYPE_CHECKING:
    from devhost_server.observe.options import LogOptions

_ROOT: Final = "devhost_server"

# What is said at any `log.level`: that the gateway is ready, and how it ended. It is no event among others but what the
# program owes to whoever starts and stops it.
milestones: Final = logging.getLogger(f"{_ROOT}.master.milestones")
milestones.setLevel(logging.INFO)


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "ts": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return _encoded(entry)


def _encoded(entry: dict[str, Any]) -> str:
    """Return one line of JSON that shows nothing invisible: messages may hold what strangers wrote."""
    try:
        line = orjson.dumps(entry)
    except TypeError:  # a lone surrogate, which is how Python keeps a byte that is not UTF-8
        line = orjson.dumps({key: visible(value) if isinstance(value, str) else value for key, value in entry.items()})
    return visible_json(line).decode()


class _ConsoleFormatter(logging.Formatter):
    """A line a person reads; what breaks lines in a message is shown escaped."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s [%(process)d] %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if text.isprintable() else "\n".join(map(visible, text.split("\n")))


def configure(options: "LogOptions") -> None:
    """Set up logging of this process and, since forks inherit it, of all that follow."""
    stream: TextIO | None = sys.stderr  # None where the interpreter was started without one
    console = options.format == "console" or (options.format == "auto" and stream is not None and stream.isatty())
    handler = logging.NullHandler() if stream is None else logging.StreamHandler(stream)
    handler.setFormatter(_ConsoleFormatter() if console else _JsonFormatter())
    for name in (_ROOT, "uvicorn", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
    logging.getLogger(_ROOT).setLevel(options.level.upper())
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.ERROR)


class ArbiterLog(Logger):  # type: ignore[misc] # gunicorn is not typed
    """What gunicorn logs: its routine messages are details to us, its warnings and errors are not."""

    def setup(self, cfg: Any) -> None:
        """Use our handlers instead of gunicorn's."""
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log = logging.getLogger(f"{_ROOT}.arbiter")

    def info(self, msg: str, *args: object, **kwargs: Any) -> None:
        """Log a routine message of the arbiter as a detail."""
        self.error_log.debug(msg, *args, **kwargs)

    def debug(self, msg: str, *args: object, **kwargs: Any) -> None:
        """Log a detail of the arbiter, but not the two hundred settings of gunicorn's that mean nothing here."""
        if not msg.startswith("Current configuration"):
            self.error_log.debug(msg, *args, **kwargs)

    def reopen_files(self) -> None:
        """Do nothing: events go to stderr, and the workers reopen their access logs themselves."""

    def close_on_exec(self) -> None:
        """Do nothing: there is no file of ours to close."""
