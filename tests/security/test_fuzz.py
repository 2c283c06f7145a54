"""Requests changed at random before each server: the next one to ask is answered as itself, and nothing is executed
that the gateway has not sent.
"""

import random
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import pytest

from tests.security.attacks import Words
from tests.security.mutate import mutated
from tests.security.servers import Executed, RealServer, Servers
from tests.security.stage import POOLS, Harm, Lane, Victim, Watch, is_forbidden
from tests.support import Gateway
from tests.support.waiting import wait_until

_AT_ONCE = 9  # lanes; more only makes each of them wait for the machine
_SILENCE = 0.03  # seconds without an answer after which a request is left to itself
_PARTS = 2  # so that two processes share the work
_SHOWN = 8
_SHORT = 10_000  # changed requests in an ordinary run
_NOT_COMPARED = re.compile(r"%[0-9A-Fa-f]{2}|\\+x[0-9a-f]{2}|[^0-9A-Za-z]|x[0-9a-f]{2}(?=\\)")


def comparable(target: str) -> str:
    """Return what is left of a target however it was decoded, escaped or quoted on its way into a log."""
    return _NOT_COMPARED.sub("", target)


@dataclass(frozen=True)
class Round:
    """A part of a fuzz: its seed, and how many requests each lane sends."""

    seed: int
    each: int

    def run(self, lane: Lane, watch: Watch, number: int) -> None:
        """Send the changed requests of one lane, each with a victim behind it."""
        dice = random.Random(f"{self.seed}-{lane.host}")
        with closing(Victim(lane.gateway.port, lane.host)) as victim:
            for turn in range(self.each):
                if lane.lost:
                    return
                tag = f"t{number:02}{turn:05}x"
                parts = mutated(dice, Words(lane.host, tag))
                lane.after = f"{parts!r}"[:2000]
                watch.senders[tag] = lane.host, lane.after
                lane.send(parts, _SILENCE)
                lane.check(victim)


class Forwarded:
    """How often the gateway has sent each target to each server, according to its access log from now on."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._start = len(gateway.access_log())

    def count(self) -> Counter[tuple[str, str]]:
        """Count tries by server and target."""
        found: Counter[tuple[str, str]] = Counter()
        for line in self.gateway.access_log()[self._start :]:
            if line["upstream"]:
                server = line["upstream"].rpartition("-")[0]
                found[server, comparable(line["target"])] += line["attempts"]
        return found


def unexplained(executed: dict[str, list[Executed]], forwarded: Counter[tuple[str, str]]) -> list[str]:
    """Return what servers executed more often than it was sent to them."""
    came = Counter((name, comparable(request.target)) for name, requests in executed.items() for request in requests)
    return [
        f"{name} executed {target} {times} times, and was sent it {forwarded[name, target]} times"
        for (name, target), times in came.items()
        if times > forwarded[name, target]
    ]


def fuzz(gateway: Gateway, servers: list[RealServer], config: pytest.Config, mutations: int) -> None:
    """Fuzz these servers in all their pools, so many requests in all, and judge."""
    seed = config.getoption("--security-seed")
    watches = {server.kind.name: Watch(server) for server in servers}
    lanes = [Lane(gateway, server, pool) for pool in POOLS for server in servers]
    log = Forwarded(gateway)
    turn = Round(seed, -(-mutations // len(lanes)))

    def run(number: int) -> None:
        turn.run(lanes[number], watches[lanes[number].server.kind.name], number)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(run, range(len(lanes))))
    for lane in lanes:
        lane.ask_afterwards()
    for watch in watches.values():
        watch.settle()
    executed = {name: watch.check() for name, watch in watches.items()}
    harms = [harm for each in (*lanes, *watches.values()) for harm in each.harms]
    _judge(harms, seed)

    def explained() -> bool:
        more = unexplained(executed, log.count())
        assert not more, f"seed {seed}: {more[:_SHOWN]}"
        return True

    wait_until(explained, 10)


def available(servers: Servers, part: int) -> list[RealServer]:
    """Start every other server that is installed and can be trusted with what it gets."""
    safe = [each for each in servers.by_name.values() if not (each.kind.trusted and each.kind.leaves_posts)]
    found = [server for server in safe if server.is_installed][part::_PARTS]
    for server in found:
        server.start()
    return found


def _judge(harms: list[Harm], seed: int) -> None:
    shown = "\n".join(map(str, harms[:_SHOWN]))
    assert not harms, f"{len(harms)} harms with --security-seed {seed}:\n{shown}"


@pytest.mark.parametrize(
    ("target", "forbidden"),
    [("/admin?t1x", True), ("/v/1/admin", True), ("/admin/x", True), ("/admin;x", True), ("http://a/admin t1x", True),
     ("/admin%3ft1x", True), ("/admin:t1x", False), ("/adminx?t1x", False), ("/m/t1x", False)],
)  # fmt: skip
def test_what_is_forbidden_is_what_the_gateway_keeps_to_itself(target: str, forbidden: bool) -> None:
    assert is_forbidden(target) is forbidden


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(_PARTS))
def test_no_changed_request_reaches_another(
    gateway: Gateway, servers: Servers, request: pytest.FixtureRequest, part: int
) -> None:
    fuzz(gateway, available(servers, part), request.config, _SHORT // _PARTS)


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(_PARTS))
def test_no_changed_request_reaches_another_for_long(
    gateway: Gateway, servers: Servers, request: pytest.FixtureRequest, part: int
) -> None:
    fuzz(gateway, available(servers, part), request.config, request.config.getoption("--security-mutations") // _PARTS)
