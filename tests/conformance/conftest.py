"""The proxies under test, shared by all the cases whose configuration allows it, and the report by case."""

import contextlib
import json
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import Gateway, ScriptedUpstream
from tests.support.door import WireUnderTest, opened
from tests.support.peers import PeerProxy

_CASE = re.compile(r"\b[A-Z]{2}-\d{2}\b")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers", "case(id, ...): the catalogue cases a test decides; SHOULD cases say should=True"
    )
    config.pluginmanager.register(CaseReport(config.getoption("--case-report")), "case-report")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A peer runs only what asks nothing but the wire of it."""
    if config.getoption("--peer") == "devhost":
        return
    foreign = [
        item for item in items if "conformance" in item.nodeid and "wire" not in getattr(item, "fixturenames", ())
    ]
    if foreign:
        config.hook.pytest_deselected(items=foreign)
        items[:] = [item for item in items if item not in foreign]


def case_ids(item: pytest.Item) -> list[str]:
    """The cases a test decides: those of its parameter's id, else those of its marker."""
    named = _CASE.findall(item.name)
    marked = [case for marker in item.iter_markers("case") for case in marker.args]
    return named or marked


def is_should(item: pytest.Item) -> bool:
    """Whether the specification's word for the case is SHOULD; MUST otherwise."""
    return any(marker.kwargs.get("should") for marker in item.iter_markers("case"))


class CaseReport:
    """Collects which cases passed; a case passes when every test of it did."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.cases: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note the outcome of each phase; the worst one stands."""
        report = yield
        for case in case_ids(item):
            outcomes = self.cases.setdefault(case, {"should": is_should(item), "tests": {}})["tests"]
            if report.failed or (report.when == "call" and item.nodeid not in outcomes):
                outcomes[item.nodeid] = report.outcome
        return report

    def pytest_sessionfinish(self) -> None:
        """Write the report."""
        if self.path:
            Path(self.path).write_text(json.dumps(self.cases, indent=1, sort_keys=True))


@pytest.fixture(scope="session")
def shared_gateway(upstream_listener: ScriptedUpstream) -> Iterator[Gateway]:
    """One gateway, every request to one upstream, quick timeouts.

    The environment holds what must not touch the traffic: proxies for clients, as developers' machines have them.
    """
    route = {"host": "*", "to": upstream_listener.url, "upgrades": ["websocket", "foo"]}
    config = {"routes": {"wire": route}}
    environment = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    with Gateway(config, environment=environment) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def shared_peer(request: pytest.FixtureRequest, upstream_listener: ScriptedUpstream) -> Iterator[PeerProxy]:
    """The peer named by `--peer`."""
    with contextlib.closing(PeerProxy(request.config.getoption("--peer"), upstream_listener.authority)) as peer:
        yield peer


@pytest.fixture
def wire(request: pytest.FixtureRequest, upstream: ScriptedUpstream) -> Iterator[WireUnderTest]:
    """The proxy under test, whichever it is."""
    peer = request.config.getoption("--peer")
    proxy = request.getfixturevalue("shared_gateway" if peer == "devhost" else "shared_peer")
    with opened(proxy) as door:
        yield door


@pytest.fixture
def gateway(shared_gateway: Gateway, upstream: ScriptedUpstream) -> Iterator[WireUnderTest]:
    """Our gateway: for cases about its logs, metrics or limits."""
    with opened(shared_gateway) as door:
        yield door
