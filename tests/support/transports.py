"""Over what a gateway reaches the scripted upstream of a test: http, https or a unix socket.

The tests do not change: the fixture `upstream_listener` listens there, and whoever asks for its `url` gets what fits.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.certificates import authority
from tests.support.upstream import ScriptedUpstream

# What a gateway under test trusts, so that it believes the upstream's certificate.
TRUSTED: Final = "SSL_CERT_FILE"

# The modules whose tests are about a target's connections: framing, ends, faults, reuse, time-outs and tunnels.
_OVER_TLS: Final = frozenset(
    (
        "test_chunked",
        "test_client_disconnect",
        "test_flow_control",
        "test_hop_by_hop",
        "test_informational",
        "test_methods",
        "test_retries",
        "test_reuse",
        "test_slow_bodies",
        "test_streaming",
        "test_uploads_and_streams",
        "test_upgrade",
        "test_upstream_faults",
    )
)


# Of these, what has to do with TLS least and takes longest waits for `-m long`; so do tests marked `long_over_tls`.
_LONG_OVER_TLS: Final = frozenset(("test_slow_bodies",))
# Without TCP there is no reset, and no port to refuse at: what is left is run with `-m long`.
_OVER_UNIX: Final = frozenset(
    ("test_chunked", "test_flow_control", "test_informational", "test_reuse", "test_streaming", "test_upgrade")
)


def transports_of(metafunc: pytest.Metafunc) -> list[object]:
    """Return the parameters of `upstream_listener` for a test; plain http leaves its name as it is."""
    module = metafunc.module.__name__.rpartition(".")[2]
    if module == "test_over_tls":
        return [pytest.param("https", id=pytest.HIDDEN_PARAM)]
    found: list[object] = [pytest.param("http", id=pytest.HIDDEN_PARAM)]
    if metafunc.config.getoption("--peer") != "devhost" or metafunc.definition.get_closest_marker("plain_only"):
        return found
    if module in _OVER_TLS:
        is_long = module in _LONG_OVER_TLS or metafunc.definition.get_closest_marker("long_over_tls")
        found.append(pytest.param("https", id="https", marks=[pytest.mark.long] if is_long else []))
    if module in _OVER_UNIX:
        found.append(pytest.param("unix", id="unix", marks=pytest.mark.long))
    return found


@contextlib.contextmanager
def over(transport: str) -> Iterator[ScriptedUpstream]:
    """Listen over a transport for as long as the block runs."""
    with contextlib.ExitStack() as stack:
        context = authority().context() if transport == "https" else None
        path = None
        if transport == "unix":
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="upstream-"))) / "app.sock"
        yield stack.enter_context(contextlib.closing(ScriptedUpstream(context=context, path=path)))
