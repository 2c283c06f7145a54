"""Rendering the metrics one at a time, however many ask for them."""

import asyncio
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool


class Scrapes:
    """Whoever asks while one text is being rendered shares the next one: at most two are waited for, of each format."""

    def __init__(self, prepare: Callable[[bool], Callable[[], bytes]]) -> None:
        # Called on the event loop; what it returns is run in a thread.
        self._prepare = prepare
        self._rendering = asyncio.Lock()
        self._next: dict[bool, asyncio.Task[bytes]] = {}

    async def text(self, as_openmetrics: bool) -> bytes:
        """Return a text whose rendering has begun after this call."""
        task = self._next.get(as_openmetrics)
        if task is None:
            task = self._next[as_openmetrics] = asyncio.create_task(self._rendered(as_openmetrics))
        return await asyncio.shield(task)  # others wait for it too

    async def _rendered(self, as_openmetrics: bool) -> bytes:
        async with self._rendering:
            del self._next[as_openmetrics]
            return await run_in_threadpool(self._prepare(as_openmetrics))
