"""The servers, the certificate they show, and the gateways before them; each is started when it is first needed."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.security.servers import NAMES, RealServer, Servers
from tests.security.stage import gateway_before
from tests.support import Gateway


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Who signs the certificates that the gateway believes."""
    return trustme.CA()


@pytest.fixture(scope="session")
def authority_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its certificate."""
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope="session")
def servers(authority: trustme.CA) -> Iterator[Servers]:
    """All servers of the table; those that run end with the tests."""
    certificate = authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.bytes()
    with contextlib.closing(Servers(certificate)) as all_of_them:
        yield all_of_them


@pytest.fixture(scope="session")
def gateway(servers: Servers, authority_file: Path) -> Iterator[Gateway]:
    """A gateway of one worker before all of them: every connection in a pool is everybody's."""
    with gateway_before(servers, authority_file) as running:
        yield running


@pytest.fixture(scope="session")
def gateway_of_two(servers: Servers, authority_file: Path) -> Iterator[Gateway]:
    """The same with two workers."""
    with gateway_before(servers, authority_file, workers=2) as running:
        yield running


@pytest.fixture(params=NAMES)
def server(request: pytest.FixtureRequest, servers: Servers) -> RealServer:
    """The server that the test names, or each in turn; running."""
    found = servers.by_name[request.param]
    found.start()
    return found
