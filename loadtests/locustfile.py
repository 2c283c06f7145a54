"""Load on the gateway whose every answer is checked; any wrong one makes locust exit non-zero.

All scenarios go to the built-in echo upstream, which says what it was sent. Each is a task with a tag, so that
`--tags steady upload` runs those two alone, in the proportion of their weights. loadtests/README.md has the command.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from locust import FastHttpUser, constant_throughput, events, tag, task
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

if TYPE_CHECKING:
    from locust.env import Environment

ROUTE_HOST = "whoami.localhost"
PATIENCE = 30.0
"""Seconds after which an exchange counts as failed; a load test that hangs says nothing."""

UPLOAD_SIZES = (1, 1_000, 64 * 1024, 256 * 1024)
UPLOAD = random.Random(1).randbytes(max(UPLOAD_SIZES))  # the same bytes in each run
UPLOAD_DIGESTS = {size: hashlib.sha256(UPLOAD[:size]).hexdigest() for size in UPLOAD_SIZES}
DOWNLOAD = bytes(i % 251 for i in range(100_000))
SLOW_SECONDS = 0.2
TIMER_GRAIN = 0.01
"""Event loops count in milliseconds from the start of a turn, so a timer may fire a little early."""
EVENTS, EVENT_INTERVAL = 5, 0.25  # a second from first to last: a stall of this process must not look like buffering
MESSAGES: tuple[str | bytes, ...] = ("hello", "grüße", b"\x00\x01\xff", "x" * 10_000, b"y" * 70_000)


class WrongAnswerError(Exception):
    """An answer that is not what was asked for."""


class Developer(FastHttpUser):
    """Somebody whose page, upload and live connection must all come through."""

    host = "http://127.0.0.1:7777"
    default_headers = {"Host": ROUTE_HOST}  # noqa: RUF012  an attribute locust reads, never written
    network_timeout = connection_timeout = PATIENCE
    # Twenty tasks a second and user at most: the load follows from -u, and does not rise until something breaks.
    wait_time = constant_throughput(20)

    @tag("steady")
    @task(12)
    def get(self) -> None:
        """Small GETs whose method, target and header are shown back."""
        mark = f"{random.getrandbits(64):x}"
        target = f"/steady/{mark}?a=1"
        with (
            self.client.get(target, name="/steady", headers={"X-Mark": mark}, catch_response=True) as response,
            judged(response),
        ):
            shown = json_of(response)
            expect("method", shown["method"], "GET")
            expect("target", shown["target"], target)
            expect("X-Mark", [value for name, value in shown["headers"] if name.lower() == "x-mark"], [mark])

    @tag("steady")
    @task(2)
    def download(self) -> None:
        """100 kB whose bytes tell their offset."""
        with (
            self.client.get(f"/bytes/{len(DOWNLOAD)}", name="/bytes", catch_response=True) as response,
            judged(response),
        ):
            expect("status", response.status_code, 200)
            expect("length", len(response.content or b""), len(DOWNLOAD))
            expect("content is right", response.content == DOWNLOAD, True)

    @tag("upload")
    @task(3)
    def upload(self) -> None:
        """Bodies from a byte to 256 KiB whose digest comes back."""
        size = random.choice(UPLOAD_SIZES)
        body: Any = UPLOAD[:size]  # the annotation of `data` knows text only, the client sends bytes as they are
        with self.client.post("/upload", data=body, name="/upload", catch_response=True) as response, judged(response):
            expect("answer", json_of(response), {"length": size, "sha256": UPLOAD_DIGESTS[size]})

    @tag("slow")
    @task(2)
    def wait(self) -> None:
        """A slow upstream: the answer may not come early, and nobody else may wait for it."""
        began = time.monotonic()
        with (
            self.client.get(f"/delay/{SLOW_SECONDS}", name="/delay", catch_response=True) as response,
            judged(response),
        ):
            expect("target", json_of(response)["target"], f"/delay/{SLOW_SECONDS}")
            expect("answered after the delay", time.monotonic() - began > SLOW_SECONDS - TIMER_GRAIN, True)

    @tag("sse")
    @task(1)
    def listen(self) -> None:
        """Server-sent events: numbered without a gap, and the first long before the last."""
        target = f"/sse?count={EVENTS}&interval={EVENT_INTERVAL}"
        arrivals: list[float] = []
        with self.client.get(target, name="/sse", stream=True, catch_response=True) as response, judged(response):
            expect("status", response.status_code, 200)
            for number in range(1, EVENTS + 1):
                event = bytes(response.stream.readline(b"\n\n"))
                arrivals.append(time.monotonic())
                expect("event", event.startswith(b"id: %d\n" % number), True)
            expect("end of stream", bytes(response.stream.read()), b"")
            expect("events came one by one", arrivals[-1] - arrivals[0] > EVENT_INTERVAL, True)

    @tag("websocket")
    @task(1)
    def converse(self) -> None:
        """A WebSocket: messages of both kinds and several sizes come back as they were."""
        with suppress(ReportedError), ExitStack() as stack:
            with self.measured("/ws connect"):
                conversation = stack.enter_context(self.websocket())
            for message in MESSAGES:
                with self.measured("/ws message"):
                    conversation.send(message)
                    expect("echo is right", conversation.recv(timeout=PATIENCE) == message, True)
            with self.measured("/ws close"):
                conversation.close()
                expect("close code", conversation.close_code, 1000)

    def websocket(self) -> AbstractContextManager[ClientConnection]:
        """Connect to the gateway's address under the route's name, as the HTTP scenarios do."""
        address = urlsplit(self.host)
        link = socket.create_connection((address.hostname or "", address.port or 80), timeout=PATIENCE)
        return connect(f"ws://{ROUTE_HOST}/ws", sock=link, open_timeout=PATIENCE, close_timeout=PATIENCE, max_size=None)

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Report what happens inside to locust as one request; raise `ReportedError` if it failed."""
        began = time.perf_counter()
        failure: Exception | None = None
        try:
            yield
        except (OSError, WebSocketException, WrongAnswerError) as error:
            failure = error
        self.environment.events.request.fire(
            request_type="WS",
            name=name,
            response_time=(time.perf_counter() - began) * 1000,
            response_length=0,
            exception=failure,
            context={},
        )
        if failure is not None:
            raise ReportedError from failure


class ReportedError(Exception):
    """A failure that locust has been told of; the scenario is over."""


@contextmanager
def judged(response: Any) -> Iterator[None]:
    """Turn an answer that is wrong, or cannot be read, into a failed request."""
    try:
        yield
    except WrongAnswerError as error:
        response.failure(getattr(response, "error", None) or f"{error} (status {response.status_code})")
    except (KeyError, TypeError, ValueError) as error:
        response.failure(f"JSON of another shape: {error!r} (status {response.status_code})")
    except FAILURE_EXCEPTIONS as error:
        response.failure(f"the answer was cut: {error!r}")


def json_of(response: Any) -> Any:
    """Return the JSON body of a 200, else raise `WrongAnswerError`."""
    expect("status", response.status_code, 200)
    try:
        return json.loads(response.content)
    except ValueError as error:
        raise WrongAnswerError(f"a body that is not JSON: {error}") from error


def expect(what: str, found: object, wanted: object) -> None:
    """Raise `WrongAnswerError` unless both are equal."""
    if found != wanted:
        raise WrongAnswerError(f"{what}: {found!r:.200} instead of {wanted!r:.200}")


@events.quitting.add_listener  # type: ignore[untyped-decorator]  # locust annotates the decorator no further
def _nothing_asked_is_no_success(environment: Environment, **_: object) -> None:
    """A run in which not a single request was made must not pass for a good one."""
    runner = environment.runner
    if runner is not None and runner.stats.total.num_requests == 0:
        print("no request was made", flush=True)
        environment.process_exit_code = 1
