"""The application over real sockets: what an operator, a load balancer and Prometheus see."""

import concurrent.futures
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from devhost_server.shared.board import Board, RouteCell, WorkerState
from tests.admin.harness import TOKEN, Served, client_of, reload_failed, reload_ok, served
from tests.shared.boards import Shared
from tests.support import RawClient, wait_until

READS = ["/healthz", "/readyz", "/metrics", "/api/status", "/api/routes", "/api/upstreams", "/api/config"]
CHANGES = ["/api/reload", "/api/drain"]
ALICE = "alices-token"


def problem(response: httpx.Response, status: int) -> dict[str, object]:
    """Assert that a response is a problem document."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, object] = response.json()
    assert document["status"] == status
    assert document["title"]
    assert str(document["detail"]).endswith(".")
    return document


@pytest.fixture
def client(reading: Served, shared: Shared) -> httpx.Client:
    return reading.client


# --- health ----------------------------------------------------------------------------------------------------------


def test_healthz_says_ok_whatever_the_workers_do(client: httpx.Client, shared: Shared) -> None:
    shared.board[Board.DRAINING] = 1
    response = client.get("/healthz")
    assert (response.status_code, response.text) == (200, "ok\n")


def test_readyz_follows_the_workers(client: httpx.Client, shared: Shared) -> None:
    response = client.get("/readyz")
    assert "No worker" in str(problem(response, 503)["detail"])
    assert response.headers["retry-after"] == "1"
    shared.worker(0, state=WorkerState.BOOTING)
    problem(client.get("/readyz"), 503)
    shared.worker(1)
    assert client.get("/readyz").json() == {"status": "ready", "generation": 1}
    shared.board[Board.DRAINING] = 1
    assert "draining" in str(problem(client.get("/readyz"), 503)["detail"])


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_metrics_in_prometheus_text(client: httpx.Client, shared: Shared) -> None:
    shared.worker(0).request("api")
    response = client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["vary"] == "Accept"
    samples = {s.name: s for f in parse_text(response.text) for s in f.samples if s.labels.get("route") == "api"}
    assert samples["devhost_requests_total"].value == 1


def test_metrics_in_openmetrics(client: httpx.Client, shared: Shared) -> None:
    shared.worker(0).request("api")
    response = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert {f.name for f in parse_openmetrics(response.text)} > {"devhost_requests", "devhost_build"}


def test_metrics_of_living_processes(reading: Served, shared: Shared) -> None:
    shared.worker(0, pid=reading.master.pid)
    samples = {s.name: s.value for f in parse_text(reading.client.get("/metrics").text) for s in f.samples}
    assert samples["devhost_worker_resident_memory_bytes"] > 1_000_000
    assert samples["devhost_worker_open_fds"] > 2
    assert abs(samples["devhost_worker_start_time_seconds"] - time.time()) < 120
    assert samples["devhost_build_info"] == 1


def test_other_requests_are_answered_while_a_large_scrape_is_rendered(reading: Served, shared: Shared) -> None:
    names = [f"route-{number}" for number in range(500)]
    shared.publish(
        2,
        routes={name: {"name": name, "hosts": [f"{name}.localhost"], "upstream": "api"} for name in names},
        upstreams={"api": {"targets": [8000]}},
    )
    worker = shared.worker(0)
    for name in names:
        worker.row[worker.route(name) + RouteCell.DURATION] = 1
    scraping = threading.Event()

    def scrape() -> None:
        with client_of(reading.listener) as client:
            while not scraping.is_set():
                assert client.get("/metrics").status_code == 200

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(scrape) for _ in range(3)]
        try:
            latencies = sorted(_latency(reading.client) for _ in range(30))
        finally:
            scraping.set()
        for future in futures:
            future.result(20)
    assert latencies[15] < 1


def _latency(client: httpx.Client) -> float:
    start = time.monotonic()
    assert client.get("/healthz").status_code == 200
    return time.monotonic() - start


# --- the API ---------------------------------------------------------------------------------------------------------


def test_the_api_describes_the_gateway(reading: Served, shared: Shared) -> None:
    shared.worker(0)
    client = reading.client
    status = client.get("/api/status").json()
    assert (status["version"], status["state"], status["pid"]) == ("1.2.3", "running", reading.master.pid)
    assert [upstream["name"] for upstream in status["upstreams"]] == ["api", "web"]
    routes = client.get("/api/routes").json()
    assert [route["name"] for route in routes["routes"]] == ["api", "web", "ping"]
    upstreams = client.get("/api/upstreams").json()
    assert (upstreams["generation"], upstreams["upstreams"]) == (1, status["upstreams"])
    assert client.get("/api/config").json()["settings"]["domain"] == "localhost"


def test_a_new_generation_is_seen_at_once(client: httpx.Client, shared: Shared) -> None:
    shared.publish(2, routes={"ping": {"name": "ping", "hosts": ["*"], "respond": {"status": 204}}}, upstreams={})
    assert [route["name"] for route in client.get("/api/routes").json()["routes"]] == ["ping"]


@pytest.mark.parametrize("path", ["/api/routes", "/api/upstreams", "/api/config"])
def test_reads_are_conditional(client: httpx.Client, shared: Shared, path: str) -> None:
    tag = client.get(path).headers["etag"]
    response = client.get(path, headers={"If-None-Match": tag})
    assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", tag)
    shared.publish(2, domain="other.localhost")
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 200


# --- HTTP ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", READS)
def test_head_is_get_without_a_body(client: httpx.Client, shared: Shared, path: str) -> None:
    shared.worker(0)
    shared.board[Board.STARTED_AT] = 0
    get, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":
        assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize("path", [*READS, "/", "/nothing"])
def test_nothing_is_to_be_kept_or_guessed_at(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "server" not in response.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/api/routes"])
def test_what_is_read_cannot_be_written(client: httpx.Client, method: str, path: str) -> None:
    response = client.request(method, path)
    problem(response, 405)
    assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize("path", CHANGES)
def test_what_changes_something_cannot_be_read(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    problem(response, 405)
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/nothing", "/api", "/api/routes/", "/healthz/", "/healthz//", "/%68ealthy"])
def test_everything_else_is_404_and_says_what_there_is(client: httpx.Client, path: str) -> None:
    detail = str(problem(client.get(path), 404)["detail"])
    assert "GET /healthz" in detail
    assert "POST /api/reload" in detail


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/api/events"),
        ("GET", "/api/events/stream"),
        ("POST", "/api/explain"),
        ("PUT", "/api/routes/web"),
        ("DELETE", "/api/routes/web"),
    ],
)
def test_what_later_versions_serve_is_said_to_be_missing(client: httpx.Client, method: str, path: str) -> None:
    detail = str(problem(client.request(method, path, content=b"{}"), 501)["detail"])
    assert "not built in this version. There are: GET /healthz" in detail


def test_garbage_is_refused_and_the_next_connection_served(reading: Served) -> None:
    with RawClient(reading.listener.getsockname()[1]) as raw:
        raw.send(b"\x16\x03\x01 what\r\n\r\n")
        assert raw.read_response().status == 400
    assert reading.client.get("/healthz").status_code == 200


def test_a_request_body_is_left_unread(client: httpx.Client) -> None:
    assert client.request("GET", "/healthz", content=b"x" * 1_000_000).status_code == 200


# --- who may ask -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/api/routes", "/nothing"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:7778", "127.0.0.1.evil.example"])
def test_a_foreign_name_is_refused_on_loopback(client: httpx.Client, path: str, host: str) -> None:
    problem(client.get(path, headers={"Host": host}), 421)


@pytest.mark.parametrize("host", ["localhost", "admin.localhost:7778", "127.0.0.2", "[::1]:7778"])
def test_names_of_this_machine_are_welcome(client: httpx.Client, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_other_names_are_welcome_where_they_are_listed() -> None:
    shared = Shared()
    shared.publish()
    with served(shared, names=frozenset(("devbox", "gw.example"))) as gateway:
        for host, status in (("devbox:7778", 200), ("GW.example", 200), ("localhost", 200), ("evil.example", 421)):
            assert gateway.client.get("/healthz", headers={"Host": host}).status_code == status


def test_a_client_without_host_is_no_browser(reading: Served) -> None:
    with RawClient(reading.listener.getsockname()[1]) as raw:
        raw.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert raw.read_response().status == 200


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}, {"Origin": "null"}]
)
def test_a_page_of_another_site_changes_nothing(
    client: httpx.Client, shared: Shared, path: str, headers: dict[str, str]
) -> None:
    problem(client.post(path, headers=headers), 403)
    assert shared.board[Board.RELOAD_REQUESTS] == shared.board[Board.DRAINING] == 0


@pytest.fixture(scope="module")
def guarded() -> Iterator[Served]:
    """A gateway with a token, on every address of the machine."""
    shared = Shared()
    shared.publish()
    with served(shared, socket.create_server(("0.0.0.0", 0)), token=TOKEN, tokens={"alice": ALICE}) as made:
        yield made


@pytest.mark.parametrize("path", CHANGES)
def test_changes_need_the_token(guarded: Served, path: str) -> None:
    response = guarded.client.post(path)
    problem(response, 401)
    assert response.headers["www-authenticate"] == 'Bearer realm="devhost-server"'
    response = guarded.client.post(path, headers={"Authorization": f"Bearer {TOKEN}x"})
    problem(response, 401)
    assert response.headers["www-authenticate"] == 'Bearer realm="devhost-server", error="invalid_token"'
    assert TOKEN not in response.text
    assert guarded.master.shared.board[Board.RELOAD_REQUESTS] == 0


PROBES = ["/healthz", "/readyz"]


@pytest.mark.parametrize("path", [path for path in [*READS, "/", "/nothing", "/api/events"] if path not in PROBES])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_where_others_reach_it_reads_need_the_token_too(guarded: Served, method: str, path: str) -> None:
    response = guarded.client.request(method, path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="devhost-server"'
    response = guarded.client.request(method, path, headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == {"/": 501, "/nothing": 404, "/api/events": 501}.get(path, 200)


@pytest.mark.parametrize("path", PROBES)
def test_probes_need_no_token(guarded: Served, path: str) -> None:
    assert guarded.client.get(path).status_code in {200, 503}


@pytest.mark.parametrize("path", [*READS, *CHANGES, "/nothing"])
def test_a_foreign_name_is_refused_everywhere(guarded: Served, path: str) -> None:
    headers = {"Host": "gateway.example", "Authorization": f"Bearer {TOKEN}"}
    problem(guarded.client.request("POST" if path in CHANGES else "GET", path, headers=headers), 421)


@pytest.mark.parametrize("path", READS)
def test_reads_never_show_the_token(guarded: Served, path: str) -> None:
    guarded.master.shared.publish(1, admin={"token": TOKEN, "tokens": {"alice": ALICE}})
    response = guarded.client.get(path, headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code in {200, 503}
    assert TOKEN not in response.text
    assert ALICE not in response.text


@pytest.mark.parametrize("token", [TOKEN, ALICE])
def test_the_token_opens(guarded: Served, token: str) -> None:
    response = guarded.client.post("/api/reload", headers={"Authorization": f"Bearer {token}"})
    assert (response.status_code, response.json()["result"]) == (200, "ok")


def test_on_this_machine_reads_need_no_token() -> None:
    shared = Shared()
    shared.publish()
    with served(shared, token=TOKEN) as gateway:
        for path in READS:
            assert gateway.client.get(path).status_code in {200, 503}
        problem(gateway.client.post("/api/reload"), 401)


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Callable[[], list[str]]]:
    """Give what a control process that is forked in the test logs."""
    log = tmp_path / "log"
    handler = logging.FileHandler(log)
    logger = logging.getLogger("devhost_server.admin")
    logger.addHandler(handler)  # inherited by the fork
    yield lambda: log.read_text().splitlines()
    logger.removeHandler(handler)
    handler.close()


def test_wrong_tokens_take_their_time_and_are_logged_a_few_times(logged: Callable[[], list[str]]) -> None:
    shared = Shared()
    shared.publish()
    with served(shared, token=TOKEN) as gateway, concurrent.futures.ThreadPoolExecutor(20) as pool:
        wrong = {"Authorization": "Bearer not-the-one"}

        def guess(_number: int) -> float:
            start = time.monotonic()
            with client_of(gateway.listener) as client:
                assert client.post("/api/reload", headers=wrong).status_code == 401
            return time.monotonic() - start

        guesses = [pool.submit(guess, number) for number in range(20)]
        assert _latency(gateway.client) < 0.9, "nobody else waits"
        assert min(each.result() for each in guesses) >= 1
        assert gateway.client.post("/api/reload", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    said = [line for line in logged() if line.startswith("a wrong token")]
    assert said == ["a wrong token from 127.0.0.1 for POST /api/reload"] * 10
    assert "not-the-one" not in "".join(logged())


def test_changes_are_logged_with_who_had_them_made(logged: Callable[[], list[str]]) -> None:
    shared = Shared()
    shared.publish()
    with served(shared, token=TOKEN, tokens={"alice": ALICE}) as gateway:

        def change(path: str, token: str, **headers: str) -> None:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            gateway.client.post(path, headers={"Authorization": f"Bearer {token}"} | names)

        change("/api/reload", ALICE, X_Devhost_Actor="mallory")
        change("/api/reload", TOKEN, X_Devhost_Actor="ci")
        change("/api/reload", TOKEN)
        change("/api/drain", TOKEN, If_Match='"7"')
        gateway.client.get("/api/status")
    assert logged() == [
        "POST /api/reload by alice, from 127.0.0.1: 200",
        "POST /api/reload by ci, from 127.0.0.1: 200",
        "POST /api/reload by 127.0.0.1, from 127.0.0.1: 200",
        "POST /api/drain by 127.0.0.1, from 127.0.0.1: 412",
    ]


# --- changes ---------------------------------------------------------------------------------------------------------


def test_a_reload_that_succeeds(client: httpx.Client, shared: Shared) -> None:
    response = client.post("/api/reload")
    assert response.status_code == 200
    assert response.json() == {
        "result": "ok",
        "at": "2026-11-21T07:00:00.000Z",
        "generation": 2,
        "errors": [],
        "duration_ms": 12.3,
        "trigger": "api",
    }
    assert client.get("/api/status").json()["last_reload"] == response.json()


@pytest.mark.parametrize("path", ["/api/config", "/api/routes", "/api/status"])
def test_a_change_can_be_bound_to_what_was_read(client: httpx.Client, shared: Shared, path: str) -> None:
    read = client.get(path).headers["etag"]
    shared.worker(0).exchange("api", "http://127.0.0.1:8000")  # load and health are no part of it
    for change in CHANGES:
        document = problem(client.post(change, headers={"If-Match": '"other"'}), 412)
        assert document["generation"] == 1
        assert "generation 1" in str(document["detail"])
    assert shared.board[Board.RELOAD_REQUESTS] == shared.board[Board.DRAINING] == 0
    assert client.post("/api/reload", headers={"If-Match": read}).status_code == 200
    shared.publish(2, domain="other.localhost")
    problem(client.post("/api/reload", headers={"If-Match": read}), 412)
    for current in (client.get(path).headers["etag"], '"2"', "*"):
        assert client.post("/api/reload", headers={"If-Match": current}).status_code == 200


def test_a_drain_can_be_bound_to_what_was_read() -> None:
    shared = Shared()
    shared.publish()
    with served(shared) as gateway:
        problem(gateway.client.post("/api/drain", headers={"If-Match": '"2"'}), 412)
        assert gateway.client.get("/api/status").json()["state"] != "draining"
        assert gateway.client.post("/api/drain", headers={"If-Match": '"1"'}).status_code == 202


def test_a_reload_that_fails_gives_the_errors() -> None:
    shared = Shared()
    shared.publish()
    with served(shared, on_reload=reload_failed) as gateway:
        document = problem(gateway.client.post("/api/reload"), 422)
        assert document["errors"] == ["devhost.yaml:3:5: routes.api.to: 'x' is not a target"]
        assert (document["result"], document["generation"]) == ("failed", 1)


def test_each_request_waits_for_a_reload_that_began_after_it() -> None:
    shared = Shared()
    shared.publish()

    def slowly(shared: Shared, served_request: int) -> None:
        time.sleep(0.2)  # what the reload itself takes: requests come meanwhile
        reload_ok(shared, served_request)

    def ask(listener: socket.socket) -> int:
        with client_of(listener) as client:
            began = shared.board[Board.RELOAD_REQUESTS]
            answer = client.post("/api/reload").json()
            assert shared.board[Board.RELOAD_SERVED] > began
            return int(answer["generation"])

    with served(shared, on_reload=slowly) as gateway, concurrent.futures.ThreadPoolExecutor(6) as pool:
        generations = list(pool.map(ask, [gateway.listener] * 6))
        assert len(generations) == 6
        assert shared.board[Board.RELOAD_REQUESTS] == 6


def test_a_reload_that_never_ends_is_504(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devhost_server.admin.app.RELOAD_BOUND", 0.3)  # inherited by the fork
    shared = Shared()
    shared.publish()
    with served(shared, on_reload=lambda _shared, _served: None) as gateway:
        assert "0.3 s" in str(problem(gateway.client.post("/api/reload"), 504)["detail"])
        assert gateway.client.get("/healthz").status_code == 200


def test_a_drain_is_asked_for_once() -> None:
    shared = Shared()
    shared.publish()
    with served(shared) as gateway:
        for _ in range(3):
            response = gateway.client.post("/api/drain")
            assert (response.status_code, response.json()) == (202, {"state": "draining"})
        wait_until(lambda: shared.board[Board.DRAINING])
        assert gateway.client.post("/api/drain").status_code == 202
        problem(gateway.client.get("/readyz"), 503)
        problem(gateway.client.post("/api/reload"), 503)
        assert gateway.master.signals_to_drain == 1


def test_a_drain_that_began_otherwise_is_not_hurried() -> None:
    shared = Shared()
    shared.publish()
    with served(shared) as gateway:
        shared.board[Board.DRAINING] = 1
        assert gateway.client.post("/api/drain").status_code == 202
        assert gateway.client.get("/api/status").json()["state"] == "draining"
        assert gateway.master.signals_to_drain == 0


def test_a_reload_ends_when_a_drain_begins() -> None:
    shared = Shared()
    shared.publish()

    def drain_instead(shared: Shared, _served: int) -> None:
        shared.board[Board.DRAINING] = 1

    with served(shared, on_reload=drain_instead) as gateway:
        problem(gateway.client.post("/api/reload"), 503)


# --- listeners -------------------------------------------------------------------------------------------------------


def test_a_unix_socket_is_this_machines(tmp_path: Path) -> None:
    shared = Shared()
    shared.publish()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "admin.sock"))
    listener.listen()
    with served(shared, listener, token=TOKEN) as gateway:
        assert gateway.client.get("/api/routes").status_code == 200
        assert gateway.client.get("/api/routes", headers={"Host": "10.0.0.1"}).status_code == 200
        # A web server in front of it may pass on whatever name a page has made to point at it.
        problem(gateway.client.get("/api/routes", headers={"Host": "whatever.example"}), 421)
        problem(gateway.client.post("/api/reload"), 401)
        assert gateway.client.post("/api/reload", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def _has_ipv6_loopback() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6_loopback(), reason="no IPv6 here")
def test_an_ipv6_listener() -> None:
    shared = Shared()
    shared.publish()
    with served(shared, socket.create_server(("::1", 0), family=socket.AF_INET6)) as gateway:
        assert gateway.client.get("/healthz").status_code == 200
        problem(gateway.client.get("/healthz", headers={"Host": "evil.example"}), 421)
