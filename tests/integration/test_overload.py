"""More requests than can be served: those that can be are, and the others are told so soon."""

import time

import pytest

from tests.integration.helpers import EchoGateway, Storm
from tests.support import request

_CONNECTIONS, _ANSWER_SECONDS = 64, 0.05  # 1,280 answers a second at most
_SECONDS = 4.0
_SHARE, _TRIES = 0.7, 8


def test_a_flood_of_refusals_leaves_the_target_at_work(capsys: pytest.CaptureFixture[str]) -> None:
    """Hundreds of clients that ask again as soon as they are refused: the worker has no time left to spare."""
    pool = {"max_connections": _CONNECTIONS, "max_idle": _CONNECTIONS, "wait": "50ms"}
    gateway = EchoGateway(routes={"echo": {"host": "*", "upstream": "narrow"}})
    gateway.settings["upstreams"] = {"narrow": {"targets": [gateway.echo_url], "pool": pool}}
    gateway.write_config(gateway.settings)
    with gateway:
        for _ in range(_TRIES):  # until the machine has given both loads the same
            share = share_of(gateway)
            with capsys.disabled():
                print(f"\n{share:.0%} of what the target gives")
            if share >= _SHARE:
                break
        assert share >= _SHARE


def share_of(gateway: EchoGateway) -> float:
    """Answers beside a flood, as a share of those without."""
    slow = request("GET", f"/delay/{_ANSWER_SECONDS}")
    with Storm(gateway.port, connections=_CONNECTIONS, requests=(slow,)) as content:  # what this machine gives
        time.sleep(_SECONDS / 2)
    with Storm(gateway.port, connections=1500, requests=(slow,)) as storm:
        time.sleep(_SECONDS)
    assert set(content.outcomes) == {200}, content.details
    assert set(storm.outcomes) == {200, 503}, storm.details
    if storm.outcomes[503] <= storm.outcomes[200]:
        return 0.0  # no flood: its clients got no turn
    return storm.outcomes[200] / (2 * content.outcomes[200])
