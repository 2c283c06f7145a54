"""The HTTP server under the admin application: uvicorn as it comes, stopped by an event instead of by signals."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn
from starlette.types import ASGIApp

# How long responses that have begun may take once the process is told to stop, in seconds: with what uvicorn takes to
# notice (0.1 s) and to close (0.1 s), the process is gone within a second.
_GRACE: Final = 0.5
_LOG: Final = logging.getLogger("uvicorn.error")


class AdminServer(uvicorn.Server):
    """Serves on one listener until told to stop."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=75,  # scrapers come every 15 to 60 s
            )
        )
        # Below errors, uvicorn says that it starts and stops, and notes each malformed request: a flood for the asking.
        _LOG.setLevel(logging.ERROR)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process, which has its own meaning for them."""
        yield

    async def serve_until(self, stopping: asyncio.Event, listener: socket.socket) -> None:
        """Serve until `stopping` is set; then close the listener and finish what has begun, for at most `_GRACE`."""
        stopper = asyncio.create_task(self._stop_after(stopping))
        await self.serve(sockets=[listener])
        stopper.cancel()
        _LOG.disabled = True  # what is still running is cut on purpose; uvicorn would show its stack

    async def _stop_after(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self.should_exit = True
        await asyncio.sleep(_GRACE)
        self.force_exit = True
