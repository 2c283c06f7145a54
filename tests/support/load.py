"""A steady stream of requests beside what a test does, and what became of them."""

import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self

from tests.support.client import RawClient
from tests.support.messages import request
from tests.support.wire import PeerGoneError


class SteadyLoad:
    """Requests from some threads, each at a rate, on connections kept alive or new for each request.

    `outcomes` counts statuses; a failure is counted by its kind: ``refused``, ``cut`` (bytes of a response had come),
    ``unannounced`` (none had, on a connection that had served before), ``fresh`` (none had, on a new connection).
    """

    def __init__(self, port: int, *, threads: int = 4, rate: float = 60, keep_alive: bool = True) -> None:
        self.port = port
        self.keep_alive = keep_alive
        self.outcomes: Counter[int | str] = Counter()
        self.failures: list[str] = []
        self._pause = 1 / rate
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    @property
    def count(self) -> int:
        """How many requests have been made."""
        return sum(self.outcomes.values())

    @property
    def bad(self) -> dict[int | str, int]:
        """What was not a 200."""
        return {outcome: count for outcome, count in self.outcomes.items() if outcome != 200}

    def _run(self) -> None:
        client: RawClient | None = None
        while not self._stop.is_set():
            client = self._one(client)
            time.sleep(self._pause)
        if client:
            client.close()

    def _one(self, client: RawClient | None) -> RawClient | None:
        """Make one request, on `client` if there is one; the client for the next."""
        kind = "unannounced" if client else "fresh"
        try:
            client = client or RawClient(self.port, remember=False)
        except OSError:
            self.outcomes["refused"] += 1
            return None
        try:
            client.send(request())
            answer = client.read_response()
        except PeerGoneError as gone:
            self._failed(client, "cut" if "got b''" not in str(gone) else kind, gone)
        except (OSError, AssertionError) as error:
            self._failed(client, kind, error)
        else:
            self.outcomes[answer.status if answer.complete else "cut"] += 1
            if self.keep_alive and "close" not in answer.headers.tokens("connection"):
                return client
            client.close()
        return None

    def _failed(self, client: RawClient, kind: str, error: BaseException) -> None:
        self.outcomes[kind] += 1
        self.failures.append(repr(error))
        client.close()
