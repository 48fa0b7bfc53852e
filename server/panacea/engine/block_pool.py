"""Holders and keys of the KV cache's blocks. Plain integers, no tensors."""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence


class BlockPool:
    """The blocks of the KV cache, and an index of those whose content has a key.

    A block is in one of three states:

    - *free*: no sequence holds it, and its content is of no use;
    - *held*: one sequence or more hold it;
    - *kept*: no sequence holds it, but it has a key, so that a sequence with the same prefix can find it again.

    When no block is free, the least recently used kept block is allocated. Only a block without a key may be written.

    Freed blocks go to the end of the queue. A block that is used after its release therefore fails in a test that
    fills the pool, instead of working by luck.
    """

    def __init__(self, num_blocks: int) -> None:
        self._holders = [0] * num_blocks
        self._free = deque(range(num_blocks))
        self._kept: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._keys: dict[int, bytes] = {}
        self._blocks: dict[bytes, int] = {}

    def __len__(self) -> int:
        """How many blocks can be allocated: the free and the kept ones."""
        return len(self._free) + len(self._kept)

    @property
    def size(self) -> int:
        return len(self._holders)

    @property
    def num_kept(self) -> int:
        return len(self._kept)

    def allocate(self) -> int:
        """A block to write into, held by the caller alone. The caller has checked that there is one."""
        if self._free:
            block = self._free.popleft()
        else:
            block, _ = self._kept.popitem(last=False)
            del self._blocks[self._keys.pop(block)]
        self._holders[block] = 1
        return block

    def find(self, key: bytes) -> int | None:
        """The block with this key; None if there is none."""
        return self._blocks.get(key)

    def key_of(self, block: int) -> bytes | None:
        return self._keys.get(block)

    def holders(self, block: int) -> int:
        """How many sequences hold the block."""
        return self._holders[block]

    def share(self, blocks: Iterable[int]) -> None:
        """Adds the caller to the holders of blocks that it found by their keys."""
        for block in blocks:
            self._kept.pop(block, None)
            self._holders[block] += 1

    def publish(self, block: int, key: bytes) -> None:
        """Lets `key` find a block that the caller holds. The block must be full, and is never written again.

        Does nothing if another block has the key already: its content is the same.
        """
        if key not in self._blocks:
            self._blocks[key] = block
            self._keys[block] = key

    def invalidate(self, blocks: Iterable[int]) -> None:
        """Removes the keys of blocks that the caller holds: no other sequence finds them any more."""
        for block in blocks:
            key = self._keys.pop(block, None)
            if key is not None:
                del self._blocks[key]

    def release(self, blocks: Sequence[int]) -> None:
        """Removes one holder from each of a sequence's `blocks`. Raises `ValueError` for a block without a holder.

        The sequence's last blocks are reused first: a block behind a missing one can never be found.
        """
        for block in reversed(blocks):
            if not 0 <= block < self.size or not self._holders[block]:
                raise ValueError(f"block {block} was released, but no sequence holds it")
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            if block in self._keys:
                self._kept[block] = None
            else:
                self._free.append(block)

    def check_integrity(self, held: Iterable[int]) -> None:
        """Raises `ValueError` unless holders and index are consistent. `held` names a block once for each holder."""
        owned = Counter(held)
        if any(self._holders[block] != owned[block] for block in range(self.size)) or set(owned) - set(
            range(self.size)
        ):
            raise ValueError(f"sequences hold the blocks {sorted(owned)}, but the pool counts {self._holders} holders")
        everything = sorted([*self._free, *self._kept, *owned])
        if everything != list(range(self.size)):
            raise ValueError(f"a block is lost or owned twice: {everything} is not {range(self.size)}")
        if {block: key for key, block in self._blocks.items()} != self._keys:
            raise ValueError("the index by key and the index by block do not match")
        if not set(self._kept) <= set(self._keys) or set(self._free) & set(self._keys):
            raise ValueError("a kept block has no key, or a free block has one")
