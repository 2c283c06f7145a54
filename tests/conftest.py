"""Options and fixtures that every test may use."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import ScriptedUpstream, peers
from tests.support.transports import over, transports_of

# How quick an example is says more about what else the machine does than about the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Tests that are run in the background of a script are born with the interrupt ignored, and so would be every gateway.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--peer` puts another proxy where the gateway is; `--case-report` writes down which cases passed."""
    group = parser.getgroup("conformance")
    group.addoption("--peer", choices=["devhost", *peers.NAMES], default="devhost", help="the proxy under test")
    group.addoption("--case-report", metavar="FILE", help="write the outcome of every conformance case to a JSON file")
    group.addoption("--fuzz-seconds", type=float, default=900, help="how long the fuzz tests marked long run together")
    security = parser.getgroup("security")
    security.addoption("--security-seed", type=int, default=1, help="of the random changes in tests/security")
    security.addoption("--security-mutations", type=int, default=100_000, help="how many the long fuzz there tries")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line("markers", "plain_only(reason): run over plain http alone")
    config.addinivalue_line("markers", "long_over_tls: takes its time, and over TLS only with `-m long`")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses the upstream over each transport that makes a difference to it (see `tests.support.transports`)."""
    if "upstream_listener" in metafunc.fixturenames:
        metafunc.parametrize("upstream_listener", transports_of(metafunc), indirect=True, scope="session")


@pytest.fixture(scope="session")
def upstream_listener(request: pytest.FixtureRequest) -> Iterator[ScriptedUpstream]:
    """The upstream that the shared gateway knows, over the transport that the test is run over."""
    with over(getattr(request, "param", "http")) as server:
        yield server


@pytest.fixture
def upstream(upstream_listener: ScriptedUpstream) -> Iterator[ScriptedUpstream]:
    """The upstream, serving plain 200s until the test says otherwise, without memory of other tests."""
    yield upstream_listener
    upstream_listener.reset()
