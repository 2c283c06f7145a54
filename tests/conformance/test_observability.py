"""Metrics and logs: they add up, survive what they describe, and cannot be forged."""

import json
import os
import re
import signal
from collections.abc import Iterator

import pytest

from tests.support import Gateway, RawClient, ScriptedUpstream, request, response, wait_until
from tests.support.door import WireUnderTest, settled

FIELDS = {
    "ts", "request_id", "route", "client", "method", "host", "target", "protocol", "status", "flag", "bytes_in",
    "bytes_out", "duration_ms", "upstream", "target_addr", "attempts", "connect_ms", "upstream_ms", "worker",
    "user_agent", "referer", "traceparent",
}  # fmt: skip


@pytest.fixture(scope="module")
def four_workers(upstream_listener: ScriptedUpstream) -> Iterator[Gateway]:
    settings = {"server": {"workers": 4}, "routes": {"wire": {"host": "*", "to": upstream_listener.url}}}
    with Gateway(settings) as gateway:
        yield gateway


def ask_many(gateway: Gateway, count: int) -> int:
    """Requests on a new connection every ten; how many were answered."""
    answered = 0
    for _ in range(count // 10):
        with RawClient(gateway.port, remember=False) as client:
            client.send(request() * 10)
            answered += sum(client.read_response().status == 200 for _ in range(10))
    return answered


@pytest.mark.case("MT-01")
def test_counters_add_up_over_workers_and_survive_their_deaths(
    four_workers: Gateway, upstream: ScriptedUpstream
) -> None:
    name = "devhost_requests_total"
    base = four_workers.metrics().value(name, code="200")
    answered = ask_many(four_workers, 1000)
    settled(four_workers)
    first = four_workers.metrics()
    assert first.value(name, code="200") - base == answered == 1000
    workers = four_workers.worker_pids()
    os.kill(workers[0], signal.SIGKILL)
    wait_until(lambda: len(set(four_workers.worker_pids()) - {workers[0]}) == 4, 4)
    second = four_workers.metrics()
    lower = [key for key, value in first.totals.items() if key in second.totals and second.totals[key] < value]
    assert lower == [], "nothing that counts goes down"
    assert set(first.totals) <= set(second.totals)
    answered += ask_many(four_workers, 1000)
    settled(four_workers)
    third = four_workers.metrics()
    assert third.value(name, code="200") - base == answered == 2000
    wait_until(lambda: four_workers.metrics().value("devhost_workers") == 4, 2, "the dead worker's gauges going")
    wait_until(lambda: four_workers.metrics().value("devhost_connections", state="active") == 0, 3)


@pytest.mark.case("MT-02")
def test_what_is_counted_agrees(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert gateway.gateway
    settled(gateway.gateway)
    before = gateway.gateway.metrics()
    upstream.serve(response(200, (), b"x" * 1000))
    for _ in range(10):
        assert gateway.ask("POST", body=b"y" * 100).status == 200
    settled(gateway.gateway)
    after = gateway.gateway.metrics()

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert grown("devhost_requests_total", route="wire", method="POST", code="200") == 10
    assert grown("devhost_request_duration_seconds_count", route="wire") == 10
    assert grown("devhost_request_duration_seconds_bucket", route="wire", le="+Inf") == 10
    assert grown("devhost_upstream_requests_total", code="200") == 10
    assert grown("devhost_upstream_request_duration_seconds_count") == 10
    assert grown("devhost_request_bytes_total", route="wire") >= 1000
    assert grown("devhost_response_bytes_total", route="wire") >= 10_000
    assert grown("devhost_failures_total") == 0


@pytest.mark.case("MT-02")
def test_what_is_in_flight_is_shown_while_it_is(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert gateway.gateway
    metrics = gateway.gateway.metrics
    upstream.serve(lambda connection, received: connection.hold())
    clients = [gateway.send() for _ in range(3)]
    upstream.wait_requests(3)
    wait_until(lambda: metrics().value("devhost_requests_in_flight", route="wire") == 3, 1)
    for client in clients:
        client.close()
    wait_until(lambda: metrics().value("devhost_requests_in_flight", route="wire") == 0, 1)


CATALOGUE = [
    "devhost_requests_total", "devhost_request_duration_seconds_bucket", "devhost_request_bytes_total",
    "devhost_response_bytes_total", "devhost_requests_in_flight", "devhost_upstream_requests_total",
    "devhost_upstream_request_duration_seconds_bucket", "devhost_upstream_connect_duration_seconds_bucket",
    "devhost_upstream_up", "devhost_upstream_connections", "devhost_connections", "devhost_websockets",
    "devhost_workers",
    "devhost_config_generation", "devhost_config_reloads_total", "devhost_build_info",
]  # fmt: skip


@pytest.mark.case("MT-03")
@pytest.mark.parametrize("name", CATALOGUE)
def test_the_metrics_of_the_contract_are_there(gateway: WireUnderTest, upstream: ScriptedUpstream, name: str) -> None:
    assert gateway.gateway
    gateway.ask()
    wait_until(lambda: gateway.gateway and name in {sample[0] for sample in gateway.gateway.metrics().samples}, 1, name)


@pytest.mark.case("MT-03")
def test_metrics_are_offered_as_open_metrics_too(gateway: WireUnderTest) -> None:
    assert gateway.gateway
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    status, body = gateway.gateway.admin("GET", "/metrics", headers=accept)
    assert status == 200
    assert body.endswith(b"# EOF\n")


@pytest.mark.case("MT-04")
def test_an_access_log_line_has_the_contracts_fields(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    upstream.serve(response(201, (), b"12345"))
    headers = {"User-Agent": "agent/1", "Referer": "http://from.test/"}
    line = gateway.entry(gateway.ask("PUT", "/logged?a=b", headers, b"abc"))
    assert set(line) == FIELDS
    expected = {
        "route": "wire", "client": "127.0.0.1", "method": "PUT", "host": "wire.test", "target": "/logged?a=b",
        "protocol": "HTTP/1.1", "status": 201, "attempts": 1, "user_agent": "agent/1", "referer": "http://from.test/",
        "target_addr": upstream.authority,
    }  # fmt: skip
    assert {key: line[key] for key in expected} == expected
    assert not line["flag"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|\+00:00)", line["ts"])
    assert line["bytes_in"] >= 3
    assert line["bytes_out"] >= 5
    assert 0 <= line["upstream_ms"] <= line["duration_ms"] < 5000


@pytest.mark.case("MT-04")
def test_every_request_has_exactly_one_line(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert gateway.gateway
    client = gateway.connect()
    client.send(gateway.request(target="/one-line-each") * 30)
    given = [client.read_response().headers["X-Request-ID"] for _ in range(30)]
    gateway.gateway.access_entry(request_id=given[-1])
    logged = [line["request_id"] for line in gateway.gateway.access_log() if line["target"] == "/one-line-each"]
    assert sorted(logged) == sorted(given)
    assert len(set(given)) == 30


@pytest.mark.case("MT-05")
def test_labels_are_bounded_whatever_a_client_sends(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert gateway.gateway
    gateway.ask("FOO")
    settled(gateway.gateway)
    before = len(gateway.gateway.metrics().samples)
    for number in range(100):
        gateway.ask(f"M{number}", f"/{number}", host=f"h{number}.test")
    settled(gateway.gateway)
    after = gateway.gateway.metrics()
    assert len(after.samples) - before <= 5
    assert not [method for method in after.labels("devhost_requests_total", "method") if method.startswith("M")]


@pytest.mark.case("MT-05")
def test_labels_cannot_be_injected(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert gateway.gateway
    gateway.ask("GET", '/"}\\devhost_evil{a="b', {"User-Agent": '"} 1\\n# HELP evil'})
    status, body = gateway.gateway.admin("GET", "/metrics")
    assert status == 200
    assert b"evil" not in body


@pytest.mark.case("MT-05")
@pytest.mark.parametrize(
    "data",
    [
        b"GET /\x1b[31m HTTP/1.1\r\nHost: a\r\nUser-Agent: x\x1b[2J\r\n\r\n",
        (
            b'GET /a"b\\c HTTP/1.1\r\nHost: wire.test\r\n'
            b'User-Agent: "\\n\\u0000\xff\xfe\x9b31m\r\nReferer: \xe2\x80\xa8\r\n\r\n'
        ),
        b"GET /a%0d%0ab HTTP/1.1\r\nHost: wire.test\r\nX-Forwarded-For: a%0d%0a\r\n\r\n",
    ],
    ids=["ESC", "quotes and bytes", "encoded line ends"],
)
def test_log_lines_are_single_and_escaped(gateway: WireUnderTest, upstream: ScriptedUpstream, data: bytes) -> None:
    assert gateway.gateway
    answer = gateway.exchange(data)
    gateway.entry(answer)
    raw = gateway.gateway.access_file.read_bytes()
    assert not set(raw) & (set(range(32)) - {10}), "no control byte but the line's end"
    assert "\x9b" not in raw.decode(), "no C1 control either"
    for line in raw.splitlines():
        json.loads(line)
    given = [line["request_id"] for line in gateway.gateway.access_log()]
    assert given.count(answer.headers["X-Request-ID"]) == 1


@pytest.mark.case("MT-06")
def test_credentials_never_appear_in_a_log(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert gateway.gateway
    secret = "hunter2secret"
    headers = {"Authorization": f"Bearer {secret}", "Cookie": f"sid={secret}", "Proxy-Authorization": secret}
    answer = gateway.ask(target=f"http://user:{secret}@wire.test/x", headers=headers)
    if answer.status == 200:
        answer = gateway.ask(headers=headers)
    gateway.entry(answer)
    for text in (gateway.gateway.access_file.read_text(), gateway.gateway.stderr(), gateway.gateway.stdout()):
        assert secret not in text


@pytest.mark.case("MT-07")
def test_the_access_log_is_reopened_on_usr1(four_workers: Gateway, upstream: ScriptedUpstream) -> None:
    assert ask_many(four_workers, 10) == 10
    wait_until(four_workers.access_log, 2)
    moved = four_workers.directory / "access.log.1"
    four_workers.access_file.rename(moved)
    four_workers.term(signal.SIGUSR1)
    wait_until(four_workers.access_file.exists, 2, "the new file")

    def all_write_there() -> bool:
        size = moved.stat().st_size
        ask_many(four_workers, 40)
        wait_until(lambda: len(four_workers.access_log()) > 0, 2)
        return moved.stat().st_size == size

    wait_until(all_write_there, 5, "every worker writing to the new file")


@pytest.mark.case("MT-08")
def test_a_refused_request_is_logged_and_counted_too(gateway: WireUnderTest, upstream: ScriptedUpstream) -> None:
    assert gateway.gateway
    before = gateway.gateway.metrics().value("devhost_failures_total", flag="BR")
    answer = gateway.exchange(b"GET / HTTP/1.1\r\n\r\n")
    line = gateway.entry(answer)
    assert (line["status"], line["flag"]) == (400, "BR")
    assert gateway.gateway.metrics().value("devhost_failures_total", flag="BR") == before + 1


@pytest.mark.case("MT-09")
@pytest.mark.parametrize("accept", ["text/html,application/xhtml+xml,*/*;q=0.8", "application/json", "*/*", None])
def test_an_answer_of_the_gateway_suits_who_asked(
    gateway: WireUnderTest, upstream: ScriptedUpstream, accept: str | None
) -> None:
    upstream.refuse()
    answer = gateway.ask(target="/<script>alert(1)</script>", headers={} if accept is None else {"Accept": accept})
    assert answer.status == 502
    assert answer.headers["Proxy-Status"].startswith("devhost")
    given = answer.headers["X-Request-ID"]
    if accept and "html" in accept:
        assert answer.headers["Content-Type"].startswith("text/html")
        assert b"<script>alert(1)" not in answer.body, "escaped"
        assert given.encode() in answer.body
        assert upstream.authority.encode() in answer.body, "it names the target"
    else:
        gateway.expect_own(answer, 502, "UF")
        problem = json.loads(answer.body)
        assert problem["route"] == "wire"
        assert upstream.authority in json.dumps(problem)
