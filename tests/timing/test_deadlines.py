"""The wheel, by a clock that the test turns."""

import gc
import weakref
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule

from devhost_server.timing.deadlines import HELD_UP, NEVER, TICK, LivedTime, Wheel


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False)
class Item:
    """Something with a deadline, that notes when it was expired and then does what it is told."""

    wheel: Wheel
    deadline: float = NEVER
    visit: float = NEVER
    expired: list[float] = field(default_factory=list)
    again: float | None = None  # seconds until the next deadline; None for none
    forgets: bool = False  # instead of moving the deadline

    def move(self, deadline: float) -> None:
        """Move the deadline as connections do."""
        self.deadline = deadline
        if self.deadline < self.visit:
            self.wheel.watch(self)

    def expire(self, now: float) -> None:
        assert self.deadline <= now
        self.expired.append(now)
        if self.forgets:
            self.wheel.forget(self)
        else:
            self.deadline = NEVER if self.again is None else now + self.again


@pytest.mark.parametrize("start", [0.0, 12.34, 1e6 + 0.7])
@pytest.mark.parametrize("delay", [0.0, 0.001, TICK, 0.3, 7.77])
def test_a_deadline_is_noticed_soon_after_it_has_passed(start: float, delay: float) -> None:
    clock = Clock(start)
    wheel = Wheel(clock)
    item = Item(wheel)
    item.move(start + delay)
    while not item.expired and clock.now < start + delay + 1:
        clock.now += 0.01
        wheel.turn()
    (expired,) = item.expired
    assert start + delay <= expired <= start + delay + TICK + 0.011


def test_a_deadline_moved_on_is_only_an_assignment_and_expires_once() -> None:
    clock = Clock(100.0)
    wheel = Wheel(clock)
    item = Item(wheel)
    for request in range(50):
        item.move(100.0 + request * 0.1 + 1.0)
        clock.now = 100.0 + request * 0.1
        wheel.turn()
    assert not item.expired
    clock.now = 200.0
    wheel.turn()
    wheel.turn()
    assert item.expired == [200.0]


def test_a_deadline_brought_forward_is_kept() -> None:
    clock = Clock(5.0)
    wheel = Wheel(clock)
    item = Item(wheel)
    item.move(65.0)
    item.move(6.0)
    clock.now = 6.0 + 2 * TICK
    wheel.turn()
    assert len(item.expired) == 1


def test_an_item_may_set_itself_a_new_deadline() -> None:
    clock = Clock()
    wheel = Wheel(clock)
    item = Item(wheel, again=1.0)
    item.move(1.0)
    while clock.now < 5.5:
        clock.now += 0.02
        wheel.turn()
    assert 4 <= len(item.expired) <= 5
    assert all(later - sooner >= 1.0 for sooner, later in zip(item.expired, item.expired[1:], strict=False))


def test_an_item_may_forget_itself_when_it_expires() -> None:
    clock = Clock()
    wheel = Wheel(clock)
    item = Item(wheel, forgets=True)
    item.move(1.0)
    for _ in range(10):
        clock.now += 1.0
        wheel.turn()
    assert len(item.expired) == 1


def test_what_was_forgotten_is_neither_visited_nor_kept_alive() -> None:
    clock = Clock()
    wheel = Wheel(clock)
    items = [Item(wheel) for _ in range(5)]
    for number, item in enumerate(items):
        item.move(1.0 + number)
    alive = [weakref.ref(item) for item in items]
    for item in items:
        wheel.forget(item)
        wheel.forget(item)
    del item, items
    gc.collect()
    assert [ref() for ref in alive] == [None] * 5


def test_an_item_that_another_one_forgets_is_not_visited() -> None:
    clock = Clock()
    wheel = Wheel(clock)

    class Rival(Item):
        rival: "Rival"

        def expire(self, now: float) -> None:
            super().expire(now)
            wheel.forget(self.rival)

    one, other = Rival(wheel), Rival(wheel)
    one.rival, other.rival = other, one
    one.move(1.0)
    other.move(1.0)
    clock.now = 2.0
    wheel.turn()
    assert len(one.expired) + len(other.expired) == 1


def test_what_has_expired_is_not_kept_alive() -> None:
    clock = Clock()
    wheel = Wheel(clock)
    item = Item(wheel)
    item.move(1.0)
    alive = weakref.ref(item)
    clock.now = 2.0
    wheel.turn()
    assert item.expired
    del item
    gc.collect()
    assert alive() is None


@given(st.floats(0, 1e7), st.lists(st.floats(0, 0.2), max_size=20))
def test_a_deadline_counted_from_now_is_never_early(start: float, steps: list[float]) -> None:
    clock = Clock(start)
    wheel = Wheel(clock)
    for step in steps:
        clock.now += step
        wheel.turn()
        assert clock.now <= wheel.now <= clock.now + TICK + 1e-6


@given(st.floats(0, 1e6), st.lists(st.floats(0, HELD_UP), max_size=20))
def test_a_loop_that_turns_lives_through_all_time(start: float, steps: list[float]) -> None:
    clock = Clock(start)
    lived = LivedTime(clock)
    for step in steps:
        clock.now += step
        assert not lived.turn()
        assert lived() == clock.now


@pytest.mark.parametrize("gap", [HELD_UP + TICK + 0.01, 1.0, 3600.0])
def test_of_a_time_without_turns_only_so_much_counts(gap: float) -> None:
    clock = Clock(100.0)
    lived = LivedTime(clock)
    wheel = Wheel(lived)
    before, after = Item(wheel), Item(wheel)
    before.move(wheel.now + 0.8)
    clock.now += gap
    after.move(wheel.now + 0.8)  # what is read first, counted from a turn long ago
    assert lived.turn()
    wheel.turn()
    assert lived() == pytest.approx(100.0 + TICK + HELD_UP)
    assert not before.expired
    assert not after.expired
    while clock.now < 100.0 + gap + 0.8 + 2 * TICK:
        clock.now += TICK / 2
        assert not lived.turn()
        wheel.turn()
    assert len(before.expired) == len(after.expired) == 1


def test_deadlines_come_due_however_slow_a_loop_is() -> None:
    clock = Clock(5.0)
    lived = LivedTime(clock)
    wheel = Wheel(lived)
    item = Item(wheel)
    item.move(wheel.now + 1.0)
    for _ in range(5):
        clock.now += 10.0
        assert lived.turn()
        wheel.turn()
    assert item.expired


class WheelMachine(RuleBasedStateMachine):
    """Items come, move, go; time passes unevenly: nobody is early, nobody is forgotten who has not asked for it."""

    items = Bundle("items")

    @initialize(start=st.floats(0, 1e6))
    def start(self, start: float) -> None:
        self.clock = Clock(start)
        self.wheel = Wheel(self.clock)
        self.all: list[Item] = []
        self.moved: dict[Item, float] = {}

    @rule(target=items)
    def come(self) -> Item:
        self.all.append(Item(self.wheel))
        return self.all[-1]

    @rule(item=items, seconds=st.floats(-1, 10))
    def move(self, item: Item, seconds: float) -> None:
        item.move(self.clock.now + seconds)
        self.moved[item] = self.clock.now

    @rule(item=items)
    def let_go(self, item: Item) -> None:
        item.deadline = NEVER
        self.wheel.forget(item)

    @rule(seconds=st.floats(0, 3))
    def turn(self, seconds: float) -> None:
        before = {item: len(item.expired) for item in self.all}
        now = self.clock.now + seconds
        due = [item for item in self.all if max(item.deadline, self.moved.get(item, 0)) < now - TICK - 1e-6]
        self.clock.now += seconds
        self.wheel.turn()
        for item in due:
            assert len(item.expired) == before[item] + 1


TestWheel = WheelMachine.TestCase
TestWheel.settings = settings(max_examples=60, stateful_step_count=30)


@dataclass(eq=False)
class Failing(Item):
    """Something whose deadline brings out a bug of ours."""

    def expire(self, now: float) -> None:
        super().expire(now)
        raise ValueError(self)


@pytest.mark.parametrize("failing", [{0}, {2}, {4}, {0, 1, 2, 3, 4}])
def test_what_fails_at_its_deadline_costs_only_itself(failing: set[int], caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    wheel = Wheel(clock)
    items = [Failing(wheel) if number in failing else Item(wheel) for number in range(5)]
    for item in items:
        item.move(0.3)  # all of them in one slot
    later = Item(wheel)
    later.move(0.3 + 2 * TICK)
    for _ in range(20):
        clock.now += TICK
        wheel.turn()
    assert [len(item.expired) for item in (*items, later)] == [1] * 6
    assert len(caplog.messages) == len(failing)
    assert not wheel._slots
    for item in items:
        item.move(clock.now + 0.2)
        assert item.visit != NEVER, "it may ask again"
