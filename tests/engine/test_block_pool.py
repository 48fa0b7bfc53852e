"""The block pool under any operations, beside a model of it that does everything the slow and obvious way."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from panacea.engine.block_pool import BlockPool

SIZE = 6
KEYS = [bytes([number]) for number in range(8)]


class PoolMachine(RuleBasedStateMachine):
    """Sequences of blocks are taken, named, shared and given back; `contents` is what each block holds."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(SIZE)
        self.sequences: list[list[int]] = []
        self.free = list(range(SIZE))
        self.kept: list[int] = []  # oldest first
        self.contents: dict[int, bytes] = {}

    @precondition(lambda self: self.free or self.kept)
    @rule(index=st.integers(0, 5))
    def take(self, index: int) -> None:
        expected = self.free.pop(0) if self.free else self.kept.pop(0)
        self.contents.pop(expected, None)
        assert self.pool.allocate() == expected
        if index < len(self.sequences):
            self.sequences[index].append(expected)
        else:
            self.sequences.append([expected])

    @precondition(lambda self: self.sequences)
    @rule(index=st.integers(0, 5), place=st.integers(0, 5), key=st.sampled_from(KEYS))
    def name(self, index: int, place: int, key: bytes) -> None:
        sequence = self.sequences[index % len(self.sequences)]
        block = sequence[place % len(sequence)]
        if block in self.contents:
            return  # the scheduler names a block once
        self.pool.publish(block, key)
        if key not in self.contents.values():
            self.contents[block] = key

    @rule(keys=st.lists(st.sampled_from(KEYS), unique=True, max_size=3))
    def find_and_share(self, keys: list[bytes]) -> None:
        found = [block for block in map(self.pool.find, keys) if block is not None]
        assert found == [block for key in keys for block, content in self.contents.items() if content == key]
        self.pool.share(found)
        self.kept = [block for block in self.kept if block not in found]
        if found:
            self.sequences.append(found)

    @precondition(lambda self: self.sequences)
    @rule(index=st.integers(0, 5))
    def forget(self, index: int) -> None:
        sequence = self.sequences[index % len(self.sequences)]
        self.pool.invalidate(sequence)
        for block in sequence:
            self.contents.pop(block, None)

    @precondition(lambda self: self.sequences)
    @rule(index=st.integers(0, 5))
    def release(self, index: int) -> None:
        sequence = self.sequences.pop(index % len(self.sequences))
        self.pool.release(sequence)
        held = {block for other in self.sequences for block in other}
        for block in reversed(sequence):
            if block not in held:
                (self.kept if block in self.contents else self.free).append(block)

    @invariant()
    def pool_and_model_agree(self) -> None:
        held = [block for sequence in self.sequences for block in sequence]
        self.pool.check_integrity(held)
        assert len(self.pool) == len(self.free) + len(self.kept)
        assert self.pool.num_kept == len(self.kept)
        for block in range(SIZE):
            assert self.pool.holders(block) == held.count(block)
            assert self.pool.key_of(block) == self.contents.get(block)


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def test_the_least_recently_used_makes_room_and_the_end_of_a_sequence_before_its_beginning() -> None:
    pool = BlockPool(4)
    first, second = [pool.allocate(), pool.allocate()], [pool.allocate(), pool.allocate()]
    for block in (*first, *second):
        pool.publish(block, bytes([block]))
    pool.release(first)
    pool.release(second)
    pool.share(first)
    pool.release(first)
    assert [pool.allocate() for _ in range(4)] == [second[1], second[0], first[1], first[0]]
    assert pool.find(bytes([second[1]])) is None


def test_a_key_that_another_block_has_is_not_given_twice() -> None:
    pool = BlockPool(2)
    first, second = pool.allocate(), pool.allocate()
    pool.publish(first, b"key")
    pool.publish(second, b"key")
    assert (pool.find(b"key"), pool.key_of(second)) == (first, None)
    pool.release([first, second])
    assert pool.num_kept == 1
    pool.check_integrity([])


def test_the_pool_notices_what_is_given_back_too_often_or_lost() -> None:
    pool = BlockPool(3)
    block = pool.allocate()
    with pytest.raises(ValueError, match="but the pool counts"):
        pool.check_integrity([])
    pool.share([block])
    with pytest.raises(ValueError, match="but the pool counts"):
        pool.check_integrity([block])
    pool.check_integrity([block, block])
    pool.release([block])
    pool.release([block])
    for wrong in (block, 3, -1):
        with pytest.raises(ValueError, match="no sequence holds it"):
            pool.release([wrong])
    pool.check_integrity([])
