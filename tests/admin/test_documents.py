from typing import Any

import pytest

from devhost_server.admin import documents
from devhost_server.shared.board import Board, Slot, TargetCell, WorkerState
from tests.shared.boards import Shared

API = ("api", "http://127.0.0.1:8000")
NOW = 1_763_700_000.5


@pytest.fixture
def shared() -> Shared:
    made = Shared()
    made.publish(3)
    return made


def status(shared: Shared, report: dict[str, Any] | None = None) -> dict[str, Any]:
    return documents.status(shared.view(), report, version="1.2.3", master=4711, now=NOW)


def test_a_gateway_that_has_just_been_forked() -> None:
    assert status(Shared()) == {
        "version": "1.2.3",
        "env": "",
        "generation": 0,
        "instance": "",
        "uptime_s": 0,
        "state": "starting",
        "pid": 4711,
        "workers": [],
        "upstreams": [],
        "last_reload": None,
    }


def test_a_gateway_that_runs(shared: Shared) -> None:
    shared.board[Board.STARTED_AT] = int((NOW - 60) * 1e6)
    worker = shared.worker(1, pid=12, generation=3)
    worker.row[Slot.STARTED_AT] = int((NOW - 7) * 1e6)
    worker.row[Slot.CONNECTIONS], worker.row[Slot.IN_FLIGHT], worker.row[Slot.WEBSOCKETS] = 5, 2, 1
    worker.row[Slot.RESTARTS] = 4
    report = {"result": "ok", "generation": 3}
    found = status(shared, report)
    assert (found["state"], found["generation"], found["uptime_s"], found["last_reload"]) == ("running", 3, 60, report)
    assert (found["env"], found["instance"]) == ("dev", "1a2b3c4d")
    assert found["workers"] == [
        {
            "slot": 1,
            "pid": 12,
            "state": "ready",
            "generation": 3,
            "connections": 5,
            "in_flight": 2,
            "websockets": 1,
            "restarts": 3,
            "uptime_s": 7,
        }
    ]


def test_states_of_the_gateway(shared: Shared) -> None:
    assert documents.state(shared.view()) == "starting"
    shared.worker(0, state=WorkerState.BOOTING)
    assert documents.state(shared.view()) == "starting"
    shared.worker(1)
    assert documents.state(shared.view()) == "running"
    shared.board[Board.DRAINING] = 1
    assert documents.state(shared.view()) == "draining"


def test_upstreams_with_what_their_targets_do(shared: Shared) -> None:
    for slot in (0, 1):
        worker = shared.worker(slot)
        at = worker.target(*API)
        worker.row[at + TargetCell.ACTIVE], worker.row[at + TargetCell.IDLE] = 1 + slot, 4
        worker.row[at + TargetCell.FAILING_SINCE] = 1_763_700_000_123_456 + slot
    found = {upstream["name"]: upstream["targets"] for upstream in documents.upstreams(shared.view())}
    assert list(found) == ["api", "web"]
    assert found["api"][0] == {
        "url": API[1],
        "in_flight": 3,
        "connections_active": 3,
        "connections_idle": 8,
        "up": False,
        "failing_since": "2025-11-21T04:40:00.123Z",
    }
    assert found["api"][1]["failing_since"] is None
    assert found["api"][1]["up"] is None


def test_routes_with_their_targets(shared: Shared) -> None:
    worker = shared.worker(0)
    worker.exchange(*API)
    worker.row[worker.target("api", "http://127.0.0.1:8001") + TargetCell.FAILING_SINCE] = 1
    found = documents.routes(shared.view())
    assert found["generation"] == 3
    by_name = {route["name"]: route for route in found["routes"]}
    assert by_name["api"] == {
        "name": "api",
        "hosts": ["api.localhost"],
        "path": "/v1",
        "methods": [],
        "headers": {},
        "upstream": "api",
        "targets": [
            {"url": "http://127.0.0.1:8000", "weight": 1, "up": True},
            {"url": "http://127.0.0.1:8001", "weight": 2, "up": False},
        ],
        "owner": "team-api",
        "respond": None,
        "strip_prefix": False,
        "slash": None,
        "upgrades": ["websocket"],
        "trailers": False,
        "details": True,
        "timeouts": {"connect": 3.0, "response": 30.0, "read_idle": 60.0, "tunnel_idle": 3600.0},
    }
    assert by_name["web"]["targets"] == [{"url": "unix:/run/web.sock", "weight": 1, "up": None}]
    assert by_name["web"]["methods"] == ["GET"]
    assert by_name["ping"]["targets"] == []
    assert by_name["ping"]["respond"]["body"] == "pong"


def test_before_the_first_snapshot_there_are_no_routes() -> None:
    assert documents.routes(Shared().view()) == {"generation": 0, "bind": [], "routes": []}


def test_the_configuration_without_its_secrets() -> None:
    shared = Shared()
    route = {"name": "token", "hosts": ["*"], "upstream": "api", "headers": {"authorization": "Basic eHl6", "x-a": "b"}}
    shared.publish(routes={"token": route}, admin={"token": "s3cret", "tokens": {"alice": "s3cret-too"}})
    found = documents.config(shared.view())
    settings = found["settings"]
    assert settings["admin"] == {
        "bind": "127.0.0.1:7778",
        "hosts": [],
        "token": "********",
        "tokens": {"alice": "********"},
    }
    assert settings["routes"]["token"]["headers"] == {"authorization": "********", "x-a": "b"}
    assert settings["routes"]["token"]["upstream"] == "api"
    assert documents.routes(shared.view())["routes"][0]["headers"] == {"authorization": "********", "x-a": "b"}


def test_what_came_out_of_a_file_is_in_no_document() -> None:
    shared = Shared()
    route = {
        "name": "a",
        "hosts": ["*"],
        "headers": {"x-key": "s3cret"},
        "respond": {"body": "s3cret", "headers": {"x-b": "s3cret", "x-c": "plain"}},
    }
    shared.publish(
        3,
        routes={"a": route, "b": {"name": "b", "hosts": ["b.localhost"], "upstream": "up"}},
        upstreams={"up": {"targets": ["http://s3cret", "http://other"]}},
        secrets=[
            ["routes", "a", "headers", "x-key"],
            ["routes", "a", "respond", "body"],
            ["routes", "a", "respond", "headers", "x-b"],
            ["upstreams", "up", "targets", 0, "url"],
        ],
    )
    worker = shared.worker(0)
    worker.exchange("up", "http://s3cret")
    found = [documents.routes(shared.view()), documents.config(shared.view()), status(shared)]
    found.append({"upstreams": documents.upstreams(shared.view())})
    assert "s3cret" not in str(found)
    first, second = found[0]["routes"]
    assert first["headers"] == {"x-key": "********"}
    assert first["respond"]["headers"] == {"x-b": "********", "x-c": "plain"}
    assert second["targets"][0] == {"url": "********", "weight": 1, "up": True}
    assert second["targets"][1]["url"] == "http://other"


def test_times_are_rfc_3339() -> None:
    assert documents.timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert documents.timestamp(1_763_700_000_999_999) == "2025-11-21T04:40:00.999Z"
