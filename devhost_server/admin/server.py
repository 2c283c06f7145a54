"""The HTTP server under the admin application: uvicorn within bounds, stopped by an event instead of by signals."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Any, Final, cast

import uvicorn
from starlette.types import ASGIApp

from devhost_server.admin.connection import Bounds, protocol

# How long responses that have begun may take once the process is told to stop, in seconds. Uvicorn takes up to 0.2 of
# it to notice, and 0.1 to notice that everything was cut.
_GRACE: Final = 0.6
BOUNDS: Final = Bounds()
_LOG: Final = logging.getLogger("uvicorn.error")


class AdminServer(uvicorn.Server):
    """Serves on one listener until told to stop."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=cast("Any", protocol(BOUNDS)),
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
        serving = asyncio.create_task(self.serve(sockets=[listener]))
        told = asyncio.create_task(stopping.wait())
        await asyncio.wait({serving, told}, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        self.should_exit = True
        # Not uvicorn's own time limit: when that has passed, uvicorn still waits for every connection to be gone, and
        # one whose client has stopped reading never is.
        await asyncio.wait({serving}, timeout=_GRACE)
        if not serving.done():
            self._cut()
            await asyncio.wait({serving}, timeout=_GRACE)
        if serving.done():
            serving.result()

    def _cut(self) -> None:
        _LOG.disabled = True  # uvicorn would show the stack of every exchange that is cut here
        for connection in list(self.server_state.connections):
            connection.transport.abort()
