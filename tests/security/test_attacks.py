"""Each attack against each server, while others ask: whatever a server makes of it stays the attacker's own affair."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from tests.security.attacks import FAMILIES, Attack, attacks_on
from tests.security.servers import KINDS, NAMES, Kind, RealServer
from tests.security.stage import POOLS, Harm, Lane, Victim, Watch, new_tag
from tests.support import Gateway

_SHOWN = 12
_VICTIMS = 2
# What takes luck is tried more often: surplus bytes must come between one victim and the next. An ordinary run does so
# by trying it in each pool.
_TRIES = {"surplus": 3}
# Here bytes are left over: who stands in line gets them. Elsewhere the next one to ask says as much.
_CROWDED = frozenset({"upgrades", "trailers", "surplus", "unread"})
_OVER_TLS = ("upgrades", "surplus", "unread")


def suits(found: Attack, kind: Kind) -> bool:
    """Whether an attack can be withstood: a POST that some server leaves unread needs the option that says so."""
    if not kind.trusted or not kind.leaves_posts:
        return True
    return not (found.lazy if kind.chunked else found.posts)


def attack(lane: Lane, watch: Watch, family: str, which: Iterable[int]) -> None:
    """Send those of a family's attacks down a lane: victims stand in line beside each, and one asks behind it."""
    attacks = attacks_on(lane.host, family)
    victims = [Victim(lane.gateway.port, lane.host) for _ in range(_VICTIMS)]
    with ThreadPoolExecutor(_VICTIMS) as crowd:
        for at in which:
            tag = new_tag()
            found = attacks[at].tagged(tag)
            if lane.lost:
                break
            if not suits(found, lane.server.kind):
                continue
            lane.after = found.name
            watch.senders[tag] = lane.host, found.name
            asking = [crowd.submit(lane.check, each) for each in victims if family in _CROWDED]
            lane.send(found.parts)
            wait(asking)
            lane.check(victims[0])
    for victim in victims:
        victim.close()
    lane.ask_afterwards()


def harms_of(gateway: Gateway, server: RealServer, family: str, pools: Iterable[str], *, share: bool) -> list[Harm]:
    """Attack a server in each of its pools at once: with all attacks of a family, or with a share of them in each."""
    watch = Watch(server)
    lanes = [Lane(gateway, server, pool) for pool in pools]
    count = len(attacks_on(lanes[0].host, family))
    tries = _TRIES.get(family, 1)
    step = len(lanes) if share and tries == 1 else 1
    turn = NAMES.index(server.kind.name)  # so that no attack meets all servers in the same pool

    def run(number: int) -> None:
        attack(lanes[number], watch, family, [*range((number + turn) % step, count, step)] * (1 if share else tries))

    with ThreadPoolExecutor(len(lanes)) as threads:
        list(threads.map(run, range(len(lanes))))
    watch.settle()
    watch.check()
    return watch.harms + [harm for lane in lanes for harm in lane.harms]


def judge(harms: list[Harm]) -> None:
    """Assert that nobody was harmed."""
    names = sorted({harm.after for harm in harms})
    shown = "\n".join(map(str, harms[:_SHOWN]))
    assert not harms, f"{len(harms)} harms, after {names}:\n{shown}"


CASES = [
    pytest.param(kind.name, family, id=f"{kind.name}-{family}")
    for kind in KINDS
    for family in FAMILIES
    if kind.transport != "tls" or family in _OVER_TLS
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("server", "family"), CASES, indirect=["server"])
def test_an_attack_is_nobody_elses_affair(gateway: Gateway, server: RealServer, family: str) -> None:
    judge(harms_of(gateway, server, family, POOLS, share=True))


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "family", ["trailers", *(pytest.param(name, marks=pytest.mark.long) for name in ("upgrades", "surplus", "unread"))]
)
@pytest.mark.parametrize("server", ["uvicorn-no-websockets", "waitress", "cheroot", "http-server"], indirect=True)
def test_nor_is_it_with_two_workers(gateway_of_two: Gateway, server: RealServer, family: str) -> None:
    judge(harms_of(gateway_of_two, server, family, ("one", "two"), share=True))


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("server", "family"), CASES, indirect=["server"])
def test_nor_is_any_attack_in_any_pool(gateway: Gateway, server: RealServer, family: str) -> None:
    judge(harms_of(gateway, server, family, POOLS, share=False))
