"""Real sockets, real processes and peers that misbehave on purpose: what the black-box tests are written with.

`Gateway` runs the program under test as an operator would, `RawClient` speaks to it byte by byte, `ScriptedUpstream`
plays the server behind it, and `WireUnderTest` is the door through which a test uses all three.
"""

from tests.support.client import RawClient, Response
from tests.support.gateway import Gateway, Metrics
from tests.support.messages import BadMessageError, Fields, request, response
from tests.support.net import blackhole, free_port, refusing_port
from tests.support.upstream import Received, ScriptedUpstream, UpstreamConnection
from tests.support.waiting import wait_until
from tests.support.wire import PeerGoneError

__all__ = [
    "BadMessageError",
    "Fields",
    "Gateway",
    "Metrics",
    "PeerGoneError",
    "RawClient",
    "Received",
    "Response",
    "ScriptedUpstream",
    "UpstreamConnection",
    "blackhole",
    "free_port",
    "refusing_port",
    "request",
    "response",
    "wait_until",
]
