"""Blocks on the scoreboard: each with one owner at a time, and erased before it gets another."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from devhost_server.shared.blocks import Blocks, BlocksFullError


def blocks_of(capacity: int, busy: frozenset[int] = frozenset()) -> tuple[Blocks, list[int]]:
    erased: list[int] = []
    return Blocks(capacity, erased.append, lambda block: block not in busy), erased


def serve(blocks: Blocks, *names: str) -> dict[str, int]:
    blocks.commit(blocks.plan(names))
    return dict(blocks.owners)


def test_names_keep_their_blocks() -> None:
    blocks, erased = blocks_of(4)
    assert serve(blocks, "a", "b") == {"a": 0, "b": 1}
    assert serve(blocks, "c", "b", "a") == {"a": 0, "b": 1, "c": 2}
    assert erased == []


def test_a_plan_changes_nothing() -> None:
    blocks, erased = blocks_of(4)
    serve(blocks, "a")
    blocks.plan(["b", "c"])
    assert blocks.owners == {"a": 0}
    assert serve(blocks, "a", "d") == {"a": 0, "d": 1}
    assert erased == []


def test_a_name_given_twice_has_one_block() -> None:
    blocks, _ = blocks_of(1)
    assert serve(blocks, "a", "a") == {"a": 0}


def test_a_block_is_not_given_on_while_its_owner_may_still_write() -> None:
    blocks, erased = blocks_of(2)
    serve(blocks, "a", "b")
    with pytest.raises(BlocksFullError, match="room for 2"):
        blocks.plan(["b", "c"])  # the workers still serve `a`
    serve(blocks, "b")
    assert serve(blocks, "b", "c") == {"b": 1, "c": 0}
    assert erased == [0]


def test_a_block_is_not_given_on_while_something_is_in_flight() -> None:
    blocks, erased = blocks_of(3, busy=frozenset({0}))
    serve(blocks, "a")
    serve(blocks)
    assert serve(blocks, "b") == {"b": 1}
    serve(blocks)
    assert serve(blocks, "c") == {"c": 1}
    assert erased == [1]


def test_a_reload_that_is_taken_back_gives_everybody_their_own_block_back() -> None:
    blocks, erased = blocks_of(4)
    before = serve(blocks, "a", "b", "c")
    serve(blocks, "b", "d")  # some worker cannot serve this and goes on with the one before
    assert serve(blocks, "a", "b", "c") == before
    assert erased == []
    assert serve(blocks, "a", "b", "c", "e") == {**before, "e": 3}
    assert erased == [3]


def test_a_name_that_is_back_later_begins_anew() -> None:
    blocks, erased = blocks_of(2)
    serve(blocks, "a")
    serve(blocks)
    serve(blocks)
    assert serve(blocks, "a") == {"a": 0}
    assert erased == [0]


class BlocksMachine(RuleBasedStateMachine):
    """Configurations come and go, exchanges begin and end; a worker may serve the last configuration but one."""

    def __init__(self) -> None:
        super().__init__()
        self.busy: set[int] = set()
        self.content: dict[int, str] = {}  # whose counts a block holds
        self.blocks = Blocks(6, self.erase, lambda block: block not in self.busy)
        self.before: dict[str, int] = {}

    def erase(self, block: int) -> None:
        assert block not in self.busy
        self.content.pop(block, None)

    @rule(names=st.lists(st.sampled_from("abcdefgh"), max_size=5), commits=st.booleans())
    def reload(self, names: list[str], commits: bool) -> None:
        served = dict(self.blocks.owners)
        try:
            plan = self.blocks.plan(names)
        except BlocksFullError:
            assert self.blocks.owners == served
            return
        assert set(plan.owners) == set(names)
        assert self.blocks.owners == served
        if commits:
            self.blocks.commit(plan)
            self.before = served

    @rule()
    def take_back(self) -> None:
        """Return to the configuration before, as after a failed reload."""
        served = dict(self.blocks.owners)
        before = self.before
        self.blocks.commit(self.blocks.plan(before))
        assert self.blocks.owners == before
        self.before = served

    @rule(data=st.data())
    def exchange(self, data: st.DataObject) -> None:
        """Begin an exchange by the configuration that is served or the one before."""
        owners = data.draw(st.sampled_from([self.blocks.owners, self.before]))
        if owners:
            block = data.draw(st.sampled_from(sorted(owners.values())))
            self.busy.add(block)

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.busy:
            self.busy.discard(data.draw(st.sampled_from(sorted(self.busy))))

    @invariant()
    def one_owner_a_block(self) -> None:
        owners = self.blocks.owners
        assert len(set(owners.values())) == len(owners)
        assert all(0 <= block < 6 for block in owners.values())

    @invariant()
    def no_block_changes_hands_between_neighbouring_configurations(self) -> None:
        """A worker that still serves the configuration before writes to nobody else's block."""
        before = {block: name for name, block in self.before.items()}
        for name, block in self.blocks.owners.items():
            assert before.get(block, name) == name

    @invariant()
    def counts_belong_to_the_owner(self) -> None:
        for name, block in self.blocks.owners.items():
            assert self.content.setdefault(block, name) == name


TestBlocks = BlocksMachine.TestCase
TestBlocks.settings = settings(max_examples=80, stateful_step_count=25)
