"""Reloading: in place, all or nothing, and nobody outside notices."""

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support import Gateway, RawClient, Received, ScriptedUpstream, UpstreamConnection, request, wait_until
from tests.support.gateway import descriptors, rss_kib
from tests.support.load import SteadyLoad
from tests.support.messages import chunk
from tests.support.websocket import TEXT, Frame, echo_server, handshake, read_frame


def config(upstream: ScriptedUpstream, said: str = "one", **more: Any) -> dict[str, Any]:
    said_route = {"host": "said.test", "respond": {"status": 200, "body": said}}
    routes = {"wire": {"host": "*", "to": upstream.url}, "said": said_route}
    return {"server": {"workers": 2}, "routes": routes} | more


@pytest.fixture(scope="module")
def reloading_gateway(upstream_listener: ScriptedUpstream) -> Iterator[Gateway]:
    """Two workers, shared by this module's tests."""
    with Gateway(config(upstream_listener)) as gateway:
        yield gateway


@pytest.fixture
def gateway(reloading_gateway: Gateway, upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """The gateway with its first configuration; afterwards no complaint, and the workers it had."""
    reloading_gateway.write_config(config(upstream))
    assert reloading_gateway.reload()[0] == 200
    workers = reloading_gateway.worker_pids()
    yield reloading_gateway
    complaints = reloading_gateway.complaints()
    assert not complaints, complaints[0]
    assert reloading_gateway.worker_pids() == workers, "a reload keeps the workers"


def said(gateway: Gateway) -> set[bytes]:
    """What the route answers on a few connections, hence on both workers with all but certainty."""
    answers = set()
    for _ in range(12):
        with RawClient(gateway.port) as client:
            client.send(request(host="said.test"))
            answers.add(client.read_response().body)
    return answers


def results(gateway: Gateway) -> dict[str, float]:
    """Reloads by result."""
    return {
        labels["result"]: value
        for name, labels, value in gateway.metrics().samples
        if name == "devhost_config_reloads_total"
    }


@pytest.mark.case("RL-01")
def test_no_fresh_connection_fails_while_reloading(gateway: Gateway) -> None:
    with SteadyLoad(gateway.port, keep_alive=False) as load:
        for _ in range(20):
            assert gateway.reload()[0] == 200
        wait_until(lambda: load.count > 150, 10)
    assert load.bad == {}, load.failures[:5]


@pytest.mark.case("RL-02")
@pytest.mark.parametrize("reloads", [20, pytest.param(100, marks=pytest.mark.long)])
def test_no_kept_connection_fails_while_reloading(gateway: Gateway, reloads: int) -> None:
    with SteadyLoad(gateway.port, threads=8, rate=70) as load:
        for _ in range(reloads):
            assert gateway.reload()[0] == 200
        wait_until(lambda: load.count > 300, 10)
    assert load.bad == {}, load.failures[:5]


@pytest.mark.case("RL-03")
@pytest.mark.parametrize("by", ["the API", "HUP", "the command"])
def test_a_reload_applies_to_every_worker(gateway: Gateway, upstream: ScriptedUpstream, by: str) -> None:
    before = gateway.metrics()
    gateway.write_config(config(upstream, f"two by {by}"))
    if by == "the API":
        assert gateway.reload()[0] == 200
    elif by == "the command":
        done = gateway.run("--admin", f"http://127.0.0.1:{gateway.admin_port}", "reload")
        assert done.returncode == 0, done.stderr
    else:
        gateway.term(signal.SIGHUP)
        generation = before.value("devhost_config_generation")
        wait_until(lambda: gateway.metrics().value("devhost_config_generation") > generation)
        wait_until(lambda: said(gateway) == {f"two by {by}".encode()})
    assert said(gateway) == {f"two by {by}".encode()}


BROKEN = {
    "syntax": "routes: {wire: [\n",
    "an unknown key": "routez: {}\n",
    "a bad upstream": "routes: {wire: {host: '*', to: 'htp://nowhere'}}\n",
    "not a mapping": "- 1\n",
    "empty routes": "routes: {wire: {}}\n",
    "a tab": "routes:\n\twire: 1\n",
    "not UTF-8": "routes: {wire: '\udcff'}\n",
}


@pytest.mark.case("RL-04")
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_changes_nothing_and_says_why(gateway: Gateway, kind: str) -> None:
    before = gateway.metrics().value("devhost_config_generation")
    counted = results(gateway)
    gateway.config_file.write_bytes(BROKEN[kind].encode(errors="surrogateescape"))
    done = gateway.run("--admin", f"http://127.0.0.1:{gateway.admin_port}", "reload")
    assert done.returncode == 1
    assert gateway.config_file.name in done.stderr + done.stdout, "the reason names the file"
    assert "Traceback" not in done.stderr
    assert said(gateway) == {b"one"}, "the old one keeps serving"
    after = results(gateway)
    changed = {result for result in after if after[result] != counted.get(result, 0)}
    assert len(changed) == 1
    assert changed != {"success"}
    assert gateway.metrics().value("devhost_config_generation") == before
    assert gateway.ready()


@pytest.mark.case("RL-04")
def test_a_broken_file_on_hup_changes_nothing(gateway: Gateway) -> None:
    counted = results(gateway)
    gateway.config_file.write_text("routes: [\n")
    gateway.term(signal.SIGHUP)
    wait_until(lambda: results(gateway) != counted)
    assert said(gateway) == {b"one"}
    assert gateway.config_file.name in gateway.stderr()


@pytest.mark.case("RL-05")
def test_reloads_on_each_others_heels_end_with_the_last(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    for number in range(5):
        gateway.write_config(config(upstream, f"number {number}"))
        gateway.term(signal.SIGHUP)
    threads = [threading.Thread(target=gateway.reload) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    wait_until(lambda: said(gateway) == {b"number 4"}, 5)
    assert len(gateway.worker_pids()) == 2


@pytest.mark.case("RL-05")
def test_a_reload_while_draining_does_not_bring_it_back(upstream: ScriptedUpstream) -> None:
    go = threading.Event()
    upstream.serve(lambda connection, received: (connection.pause(go), connection.respond()))
    settings = config(upstream, defaults={"timeouts": {"response": "10s"}})
    with Gateway(settings) as gateway, RawClient(gateway.port) as client:
        client.send(request())
        upstream.wait_requests()
        gateway.term()
        wait_until(lambda: not gateway.ready(), 2)
        gateway.term(signal.SIGHUP)
        gateway.term(signal.SIGHUP)
        go.set()
        assert client.read_response().status == 200
        assert gateway.wait(6) == 0


@pytest.mark.case("RL-06")
def test_an_exchange_keeps_the_snapshot_it_began_with(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    go = threading.Event()

    def streaming(connection: UpstreamConnection, received: Received) -> None:
        connection.send(b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"one"))
        connection.pause(go)
        connection.send(chunk(b"two") + b"0\r\n\r\n")

    upstream.serve(streaming)
    with RawClient(gateway.port) as client:
        client.send(request())
        incoming = client.start_response()
        assert incoming.piece() == b"one"
        gateway.write_config(
            config(upstream, routes={"only": {"host": "*", "respond": {"status": 418, "body": "new"}}})
        )
        assert gateway.reload()[0] == 200
        go.set()
        answer = incoming.finish()
        assert (answer.body, answer.complete) == (b"onetwo", True)
        client.send(request())
        assert client.read_response().status == 418, "the same connection, the next request, the new configuration"


@pytest.mark.case("RL-07")
@pytest.mark.parametrize("reloads", [40, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.timeout(300)
def test_reloads_do_not_grow_anything(gateway: Gateway, upstream: ScriptedUpstream, reloads: int) -> None:
    def turn(count: int) -> None:
        for number in range(count):
            gateway.write_config(config(upstream, f"turn {number % 2}"))
            assert gateway.reload()[0] == 200

    turn(30)
    processes = sorted(gateway.processes())
    before = {pid: (descriptors(pid), rss_kib(pid)) for pid in processes}
    turn(reloads)
    assert sorted(gateway.processes()) == processes
    for pid in processes:
        files, memory = before[pid]
        assert descriptors(pid) <= files + 1
        assert rss_kib(pid) <= memory * 1.05 + 1024


@pytest.mark.case("RL-08")
@pytest.mark.parametrize("how", ["rename", "truncate and write", "symlink swap"])
def test_any_way_of_replacing_the_file_is_read(gateway: Gateway, upstream: ScriptedUpstream, how: str) -> None:
    gateway.write_config(config(upstream, f"by {how}"))
    text = gateway.config_file.read_text()
    if how == "truncate and write":
        with gateway.config_file.open("w") as file:
            file.write(text)
    elif how == "symlink swap":
        (gateway.directory / "real.yaml").write_text(text)
        link = gateway.directory / "link"
        link.symlink_to("real.yaml")
        link.replace(gateway.config_file)
    assert gateway.reload()[0] == 200
    assert said(gateway) == {f"by {how}".encode()}
    gateway.config_file.unlink()


@pytest.mark.case("RL-09")
def test_a_tunnel_does_not_notice(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.serve(echo_server)
    with RawClient(gateway.port) as client:
        client.send(handshake())
        assert client.start_response().status == 101
        for number in range(3):
            assert gateway.reload()[0] == 200
            client.send(Frame(TEXT, b"%d" % number).encode(b"mask"))
            assert read_frame(client) == Frame(TEXT, b"%d" % number)


@pytest.mark.case("RL-09")
def test_equal_upstreams_keep_their_connections(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    with SteadyLoad(gateway.port, threads=1) as load:
        wait_until(lambda: load.count > 20, 5)
        before = len(upstream.connections)
        for number in range(3):
            gateway.write_config(config(upstream, f"again {number}"))
            assert gateway.reload()[0] == 200
        count = load.count
        wait_until(lambda: load.count > count + 20, 5)
        assert len(upstream.connections) <= before + 1


@pytest.mark.case("RL-80")
def test_check_says_the_same_as_reload(gateway: Gateway) -> None:
    assert gateway.run("check").returncode == 0
    gateway.config_file.write_text(yaml.safe_dump({"serverr": {}}))
    done = gateway.run("check")
    assert done.returncode == 1
    assert "did you mean" in done.stderr + done.stdout


def test_a_request_that_comes_again_is_judged_by_the_new_limits(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    again = request("GET", "/" + "x" * 200, host="said.test")
    with RawClient(gateway.port) as client:
        for _ in range(2):
            client.send(again)
            assert client.read_response().status == 200
        gateway.write_config(config(upstream, server={"workers": 2, "limits": {"target": 100}}))
        status, body = gateway.reload()
        assert status == 200, body
        client.send(again)
        assert client.read_response().status == 414
