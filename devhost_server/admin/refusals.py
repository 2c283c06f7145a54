"""What a wrong token costs: whoever sent it a second, and the log a line, of which there are few a minute."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from devhost_server.admin.replies import ProblemError

_log = logging.getLogger("devhost_server.admin")

# How long the answer to a wrong token takes. With the number of connections that one peer may have, it bounds how many
# tokens it can try in a second.
DELAY: Final = 1.0
# Answers that wait at the same time; whoever comes then is not answered later but told to come again.
_WAITING_MAX: Final = 256
_LINES_A_MINUTE: Final = 10
_MINUTE: Final = 60.0
_PATH_SHOWN: Final = 100


class WrongTokens:
    """Remembers how many wrong tokens have come lately. The clock is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._lines = 0
        self._unsaid = 0
        self._waiting = 0

    def log(self, peer: str, method: str, path: str) -> None:
        """Log one, unless enough have been logged in this minute."""
        now = self._clock()
        if now - self._began >= _MINUTE:
            self._began, self._lines = now, 0
        if self._lines >= _LINES_A_MINUTE:
            self._unsaid += 1
            return
        self._lines += 1
        more, self._unsaid = self._unsaid, 0
        others = f"; {more} before it were not logged" if more else ""
        _log.warning("a wrong token from %s for %s %s%s", peer, method, path[:_PATH_SHOWN], others)

    async def wait(self) -> None:
        """Wait as long as the answer has to; raise `ProblemError` (429) if too many wait already."""
        if self._waiting >= _WAITING_MAX:
            raise ProblemError(429, "Too many wrong tokens come in at the moment.", headers={"Retry-After": "1"})
        self._waiting += 1
        try:
            await asyncio.sleep(DELAY)
        finally:
            self._waiting -= 1
