"""Reloading in place: what changes, what must not notice, and who is told about a mistake."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.helpers import EchoGateway, Storm, pss_kib, replaced
from tests.support import Gateway, RawClient, ScriptedUpstream, free_port, request, wait_until
from tests.support.gateway import descriptors
from tests.support.waiting import patient, seconds_since
from tests.support.websocket import TEXT, Frame, handshake, read_frame


def answer(body: str, host: str = "said.test") -> dict[str, Any]:
    return {"host": host, "respond": {"status": 200, "body": body}}


class ReloadingGateway(EchoGateway):
    """A gateway whose configuration is changed by its parts."""

    def __init__(self, **options: Any) -> None:
        super().__init__(workers=2, **options)
        self.settings["routes"]["said"] = answer("one")
        self.write_config(self.settings)

    def change(self, **routes: Any) -> None:
        """Write the file with these routes added or (None) taken away."""
        for name, route in routes.items():
            if route is None:
                self.settings["routes"].pop(name, None)
            else:
                self.settings["routes"][name] = route
        self.write_config(self.settings)

    def said(self, host: str = "said.test") -> set[tuple[int, bytes]]:
        """What both workers answer there."""
        return {(reply.status, reply.body if reply.status == 200 else b"") for reply in self.ask_all(host)}

    def ask_all(self, host: str) -> list[Any]:
        """Answers from enough connections to have met both workers."""
        return [self.get(host=host) for _ in range(10)]

    @property
    def generation(self) -> int:
        """The generation that is served."""
        return int(self.status()["generation"])

    def reload_ok(self) -> dict[str, Any]:
        """Reload, which must succeed and be confirmed by every worker; the report."""
        status, body = self.reload()
        report: dict[str, Any] = json.loads(body)
        assert (status, report["result"]) == (200, "ok"), report
        # One that is booting serves nobody yet; it begins with the latest, whatever it has built before.
        workers = (worker for worker in self.status()["workers"] if worker["state"] != "booting")
        served = {worker["generation"] for worker in workers}
        assert served == {report["generation"]}, "success is said after every worker's confirmation"
        return report


@pytest.fixture(scope="module")
def shared() -> Iterator[ReloadingGateway]:
    fixed = "{host: fixed.test, respond: {status: 200, body: by the environment}}"
    with ReloadingGateway(environment={"DEVHOST__ROUTES__FIXED": fixed}) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared: ReloadingGateway) -> Iterator[ReloadingGateway]:
    """The shared gateway with its first routes; afterwards the same processes and not a word of complaint."""
    kept = json.dumps(shared.settings)
    shared.write_config(shared.settings)
    shared.reload_ok()
    processes = set(shared.processes())
    yield shared
    shared.settings = json.loads(kept)
    assert set(shared.processes()) == processes, "a reload starts and stops no process"
    assert not (complaints := shared.complaints()), complaints[0]


# -- what changes ------------------------------------------------------------------------------------------------------


def by_signal(gateway: ReloadingGateway) -> None:
    generation = gateway.generation
    gateway.term(signal.SIGHUP)
    wait_until(lambda: gateway.generation > generation)
    wait_until(lambda: {worker["generation"] for worker in gateway.status()["workers"]} == {generation + 1})


def by_command(gateway: ReloadingGateway) -> None:
    done = gateway.run("reload")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"generation {gateway.generation}" in done.stdout


WAYS: dict[str, Callable[[ReloadingGateway], object]] = {
    "HUP": by_signal,
    "the command": by_command,
    "the API": lambda gateway: gateway.reload_ok(),
}


@pytest.mark.parametrize("way", WAYS)
def test_routes_appear_change_and_disappear(gateway: ReloadingGateway, way: str) -> None:
    reload = WAYS[way]
    gateway.change(new=answer("new", "new.test"), said=answer("two"))
    reload(gateway)
    assert gateway.said("new.test") == {(200, b"new")}
    assert gateway.said() == {(200, b"two")}
    gateway.change(new=None, said=None, echo={"host": "echo.test", "to": gateway.echo_url})
    reload(gateway)
    assert gateway.said("new.test") == {(404, b"")}
    assert gateway.said() == {(404, b"")}


def test_a_route_moves_to_another_upstream_while_the_old_one_answers(
    gateway: ReloadingGateway, upstream: ScriptedUpstream
) -> None:
    gateway.change(moving={"host": "moving.test", "to": gateway.echo_url})
    gateway.reload_ok()
    with RawClient(gateway.port) as client:
        client.send(request("GET", "/delay/0.5", host="moving.test"))
        wait_until(lambda: gateway.metrics().value("devhost_requests_in_flight", route="moving") == 1)
        gateway.change(moving={"host": "moving.test", "to": upstream.url})
        gateway.reload_ok()
        assert gateway.said("moving.test") == {(200, b"ok")}
        slow = client.read_response()
        assert (slow.status, b'"target":"/delay/0.5"' in slow.body) == (200, True)
        client.send(request(host="moving.test"))
        assert client.read_response().body == b"ok", "the same connection, the next request"
    wait_until(lambda: gateway.metrics().value("devhost_requests_in_flight") == 0, 2)


def test_limits_timeouts_and_drain_change_without_a_restart(gateway: ReloadingGateway) -> None:
    assert gateway.get("/" + "x" * 2000).status == 200
    gateway.settings["server"]["limits"] = {"target": "1KiB"}
    gateway.write_config(gateway.settings)
    gateway.reload_ok()
    assert gateway.get("/" + "x" * 2000).status == 414


def test_trust_in_proxies_changes_for_connections_that_are_open(gateway: ReloadingGateway) -> None:
    forwarded = request(headers={"X-Forwarded-For": "198.51.100.7"})
    with RawClient(gateway.port) as client:
        client.send(forwarded)
        assert b"198.51.100.7" not in client.read_response().body
        for trusted, believed in ((["127.0.0.0/8"], True), ([], False)):
            gateway.settings["server"]["trusted_proxies"] = trusted
            gateway.write_config(gateway.settings)
            gateway.reload_ok()
            client.send(forwarded)
            assert (b"198.51.100.7" in client.read_response().body) is believed


def test_the_log_level_changes_and_the_access_log_moves(gateway: ReloadingGateway) -> None:
    moved = gateway.directory / "moved.log"
    gateway.settings["log"] = {"level": "error", "access": str(moved)}
    gateway.write_config(gateway.settings)
    gateway.reload_ok()
    before = len(gateway.log_lines())
    gateway.reload_ok()
    assert gateway.get("/moved").status == 200
    wait_until(lambda: "/moved" in moved.read_text(), 2)
    assert "/moved" not in gateway.access_file.read_text()
    assert len(gateway.log_lines()) == before, "information is not logged any more"
    del gateway.settings["log"]
    gateway.write_config(gateway.settings)
    gateway.reload_ok()
    wait_until(lambda: len(gateway.log_lines()) > before)


# -- what is refused ---------------------------------------------------------------------------------------------------

BROKEN = {
    "several mistakes": ("server: {wrokers: 2}\nroutes: {a: {host: '*', too: 1}}\n", ("server.wrokers", "routes.a")),
    "an unset variable": ("domain: '${NOT_SET_ANYWHERE}'\n", ("NOT_SET_ANYWHERE",)),
    "a tie": (
        "routes: {a: {host: x.test, to: 3000}, b: {host: x.test, to: 3001}}\n",
        ("routes.",),
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_bad_file_changes_nothing_and_the_caller_gets_every_mistake(gateway: ReloadingGateway, kind: str) -> None:
    text, said = BROKEN[kind]
    generation, failed = gateway.generation, gateway.metrics().value("devhost_config_reloads_total", result="failed")
    gateway.config_file.write_text(text)

    status, body = gateway.reload()
    problem = json.loads(body)
    assert (status, problem["result"]) == (422, "failed")
    assert all(any(word in error for error in problem["errors"]) for word in said), problem

    done = gateway.run("--admin", f"127.0.0.1:{gateway.admin_port}", "reload")
    assert done.returncode == 1
    assert all(word in done.stderr for word in said), done.stderr
    assert "Traceback" not in done.stderr

    gateway.term(signal.SIGHUP)
    wait_until(lambda: gateway.metrics().value("devhost_config_reloads_total", result="failed") == failed + 3)
    assert all(any(word in line for line in gateway.messages("error")) for word in said)
    assert gateway.said() == {(200, b"one")}
    assert gateway.generation == generation
    assert gateway.status()["last_reload"]["result"] == "failed"
    assert gateway.ready()


def test_what_needs_a_restart_is_refused_by_name(gateway: ReloadingGateway) -> None:
    generation = gateway.generation
    for section, value, key in (
        ("server", {**gateway.settings["server"], "bind": [f"127.0.0.1:{free_port()}"]}, "server.bind"),
        ("admin", {"bind": f"127.0.0.1:{free_port()}"}, "admin"),
        ("echo", {"bind": f"127.0.0.1:{free_port()}"}, "echo"),
    ):
        gateway.write_config({**gateway.settings, section: value})
        status, body = gateway.reload()
        (error,) = json.loads(body)["errors"]
        assert (status, error.startswith(f"{key}: cannot change while running")) == (422, True)
        assert "restart" in error
    assert gateway.generation == generation


def test_the_command_without_a_gateway_says_so() -> None:
    gateway = EchoGateway()
    try:
        done = gateway.run("reload")
        assert done.returncode == 1
        assert f"no gateway answers on 127.0.0.1:{gateway.admin_port}" in done.stderr
    finally:
        gateway.discard()


def test_the_api_wants_the_token(upstream: ScriptedUpstream) -> None:
    gateway = ReloadingGateway()
    gateway.settings["admin"] = {"bind": f"127.0.0.1:{gateway.admin_port}", "token": "let-me-in"}
    gateway.write_config(gateway.settings)
    with gateway:
        gateway.change(said=answer("two"))
        assert gateway.reload()[0] == 401
        assert gateway.admin("POST", "/api/reload", headers={"Authorization": "Bearer wrong"})[0] == 401
        assert gateway.said() == {(200, b"one")}
        status, body = gateway.admin("POST", "/api/reload", headers={"Authorization": "Bearer let-me-in"})
        assert (status, json.loads(body)["result"]) == (200, "ok")
        assert gateway.said() == {(200, b"two")}
        assert gateway.run("reload").returncode == 0, "the command finds the token in the configuration"
        other = gateway.run("--set", "admin.token=other", "reload")
        assert (other.returncode, "token" in other.stderr) == (1, True)


def test_an_access_log_that_cannot_be_opened_is_refused_and_the_old_one_goes_on(gateway: ReloadingGateway) -> None:
    generation = gateway.generation
    gateway.settings["log"] = {"access": str(gateway.directory / "nowhere" / "access.log")}
    gateway.write_config(gateway.settings)
    status, body = gateway.reload()
    assert status == 422
    (error,) = json.loads(body)["errors"]
    assert error.startswith("log.access: cannot write to ")
    assert gateway.generation == generation
    assert gateway.get("/still-logged").status == 200
    gateway.access_entry(target="/still-logged")


def test_a_pipe_that_nobody_reads_is_refused_by_the_workers(gateway: ReloadingGateway) -> None:
    pipe = gateway.directory / "pipe"
    os.mkfifo(pipe)
    gateway.settings["log"] = {"access": str(pipe)}
    gateway.write_config(gateway.settings)
    status, body = gateway.reload()
    assert status == 422
    assert "could not serve" in json.loads(body)["errors"][0]
    assert any("does nobody read it?" in line for line in gateway.messages("error"))
    assert gateway.get("/still-logged-too").status == 200
    gateway.access_entry(target="/still-logged-too")


# -- what must not notice ----------------------------------------------------------------------------------------------


def test_an_unchanged_upstream_keeps_its_connections(gateway: ReloadingGateway, upstream: ScriptedUpstream) -> None:
    """Seen from the upstream: the same connections before and after, for what is equal, however it was written."""
    gateway.change(kept={"host": "kept.test", "to": upstream.url})
    gateway.reload_ok()
    with RawClient(gateway.port) as one, RawClient(gateway.port) as other:

        def numbers() -> list[int]:
            upstream.forget()
            for client in (one, other):
                client.send(request(host="kept.test"))
                assert client.read_response().status == 200
            return [received.connection for received in upstream.requests]

        before = numbers()
        gateway.change(kept={"host": ["kept.test", "also.test"], "to": upstream.url + "/"}, said=answer("else"))
        gateway.reload_ok()
        assert numbers() == before
        gateway.settings["upstreams"] = {"changed": {"targets": [gateway.echo_url]}}
        gateway.change(said=None)
        gateway.reload_ok()
        assert numbers() == before
        assert len(upstream.connections) <= 2


def test_the_connections_of_an_upstream_that_is_gone_are_closed(
    gateway: ReloadingGateway, upstream: ScriptedUpstream
) -> None:
    gateway.change(leaving={"host": "leaving.test", "to": upstream.url})
    gateway.reload_ok()
    assert gateway.said("leaving.test") == {(200, b"ok")}
    assert upstream.connections
    gateway.change(leaving=None)
    gateway.reload_ok()
    wait_until(lambda: all(connection.end == "fin" for connection in upstream.connections), 2)


def test_websockets_and_event_streams_go_on(gateway: ReloadingGateway) -> None:
    """Even when their own route changes, or is gone: an exchange keeps what it began with."""
    with RawClient(gateway.port) as websocket, RawClient(gateway.port) as stream:
        websocket.send(handshake("/ws"))
        assert websocket.start_response().status == 101
        stream.send(request("GET", "/sse?interval=0.02"))
        events = stream.start_response()
        assert events.piece()
        for round_ in range(4):
            if round_ == 2:
                gateway.change(echo=None)
            gateway.change(said=answer(f"round {round_}"))
            gateway.reload_ok()
            payload = b"round %d" % round_
            websocket.send(Frame(TEXT, payload).encode(b"mask"))
            assert read_frame(websocket) == Frame(TEXT, payload)
            assert events.piece()
        assert gateway.get("/ws").status == 404
        assert sum(worker["websockets"] for worker in gateway.status()["workers"]) == 1
    wait_until(lambda: sum(worker["websockets"] for worker in gateway.status()["workers"]) == 0, 3)
    wait_until(lambda: sum(worker["in_flight"] for worker in gateway.status()["workers"]) == 0, 3)


def test_two_reloads_within_a_moment_end_with_the_last(gateway: ReloadingGateway) -> None:
    reports: list[tuple[int, bytes]] = []
    for number in range(6):
        gateway.change(said=answer(f"number {number}"))
        if number % 2:
            gateway.term(signal.SIGHUP)
        else:
            thread = threading.Thread(target=lambda: reports.append(gateway.reload()))
            thread.start()
        time.sleep(0.02)  # the distance between two of them, shorter than a reload takes
    wait_until(lambda: len(reports) == 3, 10)
    assert {status for status, _ in reports} == {200}
    wait_until(lambda: gateway.said() == {(200, b"number 5")}, 3)
    assert gateway.status()["last_reload"]["result"] == "ok"


def test_a_worker_born_during_reloads_serves_the_latest() -> None:
    with ReloadingGateway() as gateway:
        for number in range(5):
            gateway.change(said=answer(f"number {number}"))
            victim = gateway.worker_pids()[0]
            gateway.term(signal.SIGTTIN)
            gateway.reload_ok()
            assert gateway.said() == {(200, b"number %d" % number)}
            gateway.term(signal.SIGTTOU)
            replaced(gateway, 0, 2)
            assert victim in gateway.worker_pids()


@pytest.mark.long
def test_a_reload_that_a_worker_cannot_confirm_is_taken_back() -> None:
    """A worker that hangs holds the reload up for its bound; then everybody serves what was served before."""
    with ReloadingGateway() as gateway:
        hung = gateway.worker_pids()[0]
        gateway.change(said=answer("two"))
        os.kill(hung, signal.SIGSTOP)
        try:
            began = time.monotonic()
            status, body = gateway.admin("POST", "/api/reload", timeout=30)
            assert 5 < seconds_since(began) < patient(15)
            assert status == 422
            (said,) = json.loads(body)["errors"]
            assert f"(pid {hung}) did not confirm generation 2 within 10 s" in said
            assert f"reload: {said}" in gateway.messages("error")
        finally:
            os.kill(hung, signal.SIGCONT)
        wait_until(lambda: len({worker["generation"] for worker in gateway.status()["workers"]}) == 1, 3)
        assert gateway.said() == {(200, b"one")}
        gateway.reload_ok()
        assert gateway.said() == {(200, b"two")}


def test_a_reload_while_it_drains_is_refused() -> None:
    with EchoGateway() as gateway, RawClient(gateway.port) as client:
        client.send(request("GET", "/delay/4"))  # longer than a command takes to start
        wait_until(lambda: gateway.metrics().value("devhost_requests_in_flight") == 1)
        gateway.term()
        wait_until(lambda: not gateway.ready(), 2)
        status, body = gateway.reload()
        assert status == 503
        assert b"stopping" in body
        assert gateway.run("reload").returncode == 1
        gateway.term(signal.SIGHUP)
        wait_until(lambda: "HUP: a gateway that is stopping does not reload" in gateway.messages("warning"), 2)
        assert client.read_response().status == 200
        assert gateway.wait(5) == 0


def test_a_large_configuration_stalls_nobody(gateway: ReloadingGateway) -> None:
    """A thousand routes: the workers build them beside the traffic."""
    many = {f"route-{number}": answer("many", f"h{number}.test") for number in range(1000)}
    gateway.settings["routes"] |= many
    gateway.write_config(gateway.settings)
    with Storm(gateway.port, connections=4, pause=0.002) as storm:
        wait_until(lambda: storm.count > 200, 5)
        gateway.reload_ok()
        count = storm.count
        wait_until(lambda: storm.count > count + 200, 5)
    assert gateway.said("h999.test") == {(200, b"many")}
    assert storm.bad == {}
    assert max(storm.latencies) < patient(0.35)


# -- under load --------------------------------------------------------------------------------------------------------


class Sockets:
    """Open WebSockets to the echo upstream, each of which can be asked whether it still works."""

    def __init__(self, gateway: Gateway, count: int) -> None:
        self._clients = [RawClient(gateway.port, timeout=10) for _ in range(count)]
        for client in self._clients:
            client.send(handshake("/ws"))
            assert client.start_response().status == 101

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def check(self, payload: bytes) -> None:
        """Send a message on each and wait for its echo."""
        for client in self._clients:
            client.send(Frame(TEXT, payload).encode(b"mask"))
        for client in self._clients:
            assert read_frame(client) == Frame(TEXT, payload)


@pytest.mark.parametrize(("reloads", "sockets"), [(20, 5), pytest.param(200, 20, marks=pytest.mark.long)])
@pytest.mark.timeout(300)
def test_reloads_under_load_fail_nobody_and_cost_no_memory(
    reloads: int, sockets: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with ReloadingGateway() as gateway:
        open_sockets = Sockets(gateway, sockets)
        with (
            Storm(gateway.port, connections=8, pause=0.002) as kept,
            Storm(gateway.port, connections=2, pause=0.005, fresh=True) as fresh,
        ):
            for number in range(max(reloads // 4, 5)):  # the memory that is used once
                gateway.change(said=answer(f"before {number % 3}"), coming=answer("x", f"x{number % 3}.test"))
                gateway.reload_ok()
            before = {pid: (pss_kib(pid), descriptors(pid)) for pid in gateway.processes()}
            began = time.monotonic()
            for number in range(reloads):
                gateway.change(said=answer(f"now {number % 3}"), coming=answer("x", f"x{number % 3}.test"))
                gateway.reload_ok()
                if number % 5 == 0:
                    open_sockets.check(b"%d" % number)
            took = seconds_since(began)
            open_sockets.check(b"the end")
            wait_until(lambda: kept.count > 500, 10)
            after = {pid: (pss_kib(pid), descriptors(pid)) for pid in gateway.processes()}
        with capsys.disabled():
            total = [sum(value[0] for value in side.values()) for side in (before, after)]
            print(
                f"\n{reloads} reloads in {took:.1f} s under {kept.count + fresh.count} requests with {sockets} "
                f"WebSockets: PSS of all processes {total[0]} -> {total[1]} KiB, "
                f"slowest request {max(kept.latencies) * 1000:.0f} ms"
            )
        assert kept.bad == {}, kept.details[:5]
        assert fresh.bad == {}, fresh.details[:5]
        assert before.keys() == after.keys()
        for pid, (kib, files) in before.items():
            assert after[pid][0] < kib + 1536, f"memory of {gateway.processes()[pid]}: {kib} -> {after[pid][0]} KiB"
            assert after[pid][1] <= files + 4
        open_sockets.close()


def test_the_layers_of_the_start_go_on_counting(gateway: ReloadingGateway) -> None:
    assert gateway.said("fixed.test") == {(200, b"by the environment")}
    gateway.change(said=answer("two"), fixed=answer("by the file", "fixed.test"))
    gateway.reload_ok()
    assert gateway.said() == {(200, b"two")}
    assert gateway.said("fixed.test") == {(200, b"by the environment")}
