"""Servers that fold header names, as CGI does, must not find an attacker's line where ours is expected."""

import json
from contextlib import closing

import pytest

from tests.security.servers import RealServer
from tests.support import Gateway, RawClient

CLAIMED = "203.0.113.66"
NAMES = (
    "X-Real-IP",
    "X_Real_IP",
    "X-Real_IP",
    "x!real!ip",
    "X.Real.IP",
    "X~Real~IP",
    "X-Real-IP ",
    "X+Real|IP",
    "X-ReAl-Ip",
)


@pytest.mark.parametrize("pair", [False, True], ids=["alone", "beside ours"])
def test_no_spelling_of_a_name_that_is_ours_reaches_an_application(
    gateway: Gateway, server: RealServer, pair: bool
) -> None:
    for name in NAMES:
        lines = [f"{name}: {CLAIMED}"] * (1 + pair)
        with closing(RawClient(gateway.port, timeout=15)) as client:
            head = ("GET /m/alias HTTP/1.1", f"Host: {server.kind.name}.default.test", *lines, "", "")
            client.send("\r\n".join(head).encode())
            answer = client.read_response()
        if answer.status == 200:
            assert CLAIMED not in json.loads(answer.body)["ip"], name
        else:
            assert answer.status == 400, answer
