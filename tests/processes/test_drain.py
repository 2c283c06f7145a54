"""The phases of a drain, and the pace at which WebSockets are told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost_server.processes.drain import TRANSITIONS, Cue, Phase, Spread, advance, receipt

ORDER = list(Phase)


@pytest.mark.parametrize(
    ("cues", "phase"),
    [
        ([], Phase.SERVING),
        ([Cue.SIGNAL], Phase.ANNOUNCED),
        ([Cue.SIGNAL, Cue.DELAY_OVER], Phase.FINISHING),
        ([Cue.SIGNAL, Cue.SIGNAL], Phase.CUTTING),
        ([Cue.SIGNAL, Cue.DELAY_OVER, Cue.SIGNAL], Phase.CUTTING),
        ([Cue.SIGNAL, Cue.DELAY_OVER, Cue.DEADLINE], Phase.CUTTING),
        ([Cue.SIGNAL, Cue.DELAY_OVER, Cue.NOTHING_LEFT], Phase.STOPPED),
        ([Cue.SIGNAL, Cue.SIGNAL, Cue.NOTHING_LEFT], Phase.STOPPED),
        ([Cue.NOTHING_LEFT], Phase.SERVING),
        ([Cue.DEADLINE, Cue.DELAY_OVER], Phase.SERVING),
        ([Cue.SIGNAL, Cue.NOTHING_LEFT], Phase.ANNOUNCED),
        ([Cue.SIGNAL, Cue.SIGNAL, Cue.SIGNAL], Phase.CUTTING),
    ],
)
def test_the_life_of_a_drain(cues: list[Cue], phase: Phase) -> None:
    found = Phase.SERVING
    for cue in cues:
        found = advance(found, cue)
    assert found is phase


@given(st.lists(st.sampled_from(Cue)))
def test_a_drain_never_goes_back(cues: list[Cue]) -> None:
    phase = Phase.SERVING
    for cue in cues:
        following = advance(phase, cue)
        assert ORDER.index(following) >= ORDER.index(phase)
        phase = following


def test_every_phase_but_the_last_can_be_left() -> None:
    assert {phase for phase, _ in TRANSITIONS} == set(Phase) - {Phase.STOPPED}


@given(
    st.integers(0, 5000),
    st.floats(0, 300),
    st.lists(st.floats(0, 400), max_size=30).map(sorted),
)
def test_everybody_is_told_once_and_in_time(count: int, seconds: float, moments: list[float]) -> None:
    spread = Spread(count, seconds)
    told = 0
    for moment in moments:
        due = spread.due(moment)
        assert due >= 0
        told += due
        assert told == spread.told <= count
    spread.due(max(seconds * 0.8, 0.1))
    assert spread.told == count


def test_the_telling_is_spread() -> None:
    spread = Spread(1000, 10.0)
    each_half_second = [spread.due(half / 2) for half in range(17)]
    assert max(each_half_second) <= 64  # 1000 within 8 s are 62.5 in each half second
    assert sum(each_half_second) == 1000


def test_a_few_are_told_at_once_rather_than_slowly() -> None:
    spread = Spread(10, 300.0)
    assert [spread.due(0.0), spread.due(0.1), spread.due(0.45)] == [1, 2, 7]


def test_the_last_line() -> None:
    assert receipt(3, 2, 1) == "drained: finished 3, closed 2 websockets, cut 1"
