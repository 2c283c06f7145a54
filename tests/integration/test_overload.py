"""More requests than can be served: those that can be are, and the others are told so soon."""

import time

import pytest

from tests.integration.helpers import EchoGateway, Storm
from tests.support import request

_CONNECTIONS, _ANSWER_SECONDS = 64, 0.05  # 1,280 answers a second at most
_SECONDS = 4.0


def test_a_flood_of_refusals_leaves_the_target_at_work(capsys: pytest.CaptureFixture[str]) -> None:
    """Hundreds of clients that ask again as soon as they are refused: the worker has no time left to spare."""
    pool = {"max_connections": _CONNECTIONS, "max_idle": _CONNECTIONS, "wait": "50ms"}
    gateway = EchoGateway(routes={"echo": {"host": "*", "upstream": "narrow"}})
    gateway.settings["upstreams"] = {"narrow": {"targets": [gateway.echo_url], "pool": pool}}
    gateway.write_config(gateway.settings)
    with gateway:
        slow = request("GET", f"/delay/{_ANSWER_SECONDS}")
        with Storm(gateway.port, connections=_CONNECTIONS, requests=(slow,)) as content:  # what this machine gives
            time.sleep(_SECONDS / 2)
        with Storm(gateway.port, connections=1500, requests=(slow,)) as storm:
            time.sleep(_SECONDS)
        share = storm.outcomes[200] / (2 * content.outcomes[200])
        with capsys.disabled():
            print(f"\n{share:.0%} of what the target gives, {storm.outcomes[503] / _SECONDS:,.0f} refusals a second")
        assert set(content.outcomes) == {200}, content.details
        assert set(storm.outcomes) == {200, 503}, storm.details
        assert storm.outcomes[503] > storm.outcomes[200]
        assert share >= 0.7
