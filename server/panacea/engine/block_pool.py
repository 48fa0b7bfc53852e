"""Who holds which block of the KV cache, and which prefixes the full ones hold. Plain integers, no tensors."""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence


class BlockPool:
    """The blocks of the KV cache, and an index of those whose content has a key.

    A block is *free* (nobody holds it, and nothing in it is of use), *held* by one request or more, or *kept*: nobody
    holds it, but it has a key, so that a request with the same prefix may find it again. Kept blocks make room when no
    block is free, the least recently used first. Only a block without a key may be written.

    Freed blocks go to the end of the queue: one that is used wrongly after its owner left shows late and loudly in a
    test that fills the pool, not at once by luck.
    """

    def __init__(self, num_blocks: int) -> None:
        self._holders = [0] * num_blocks
        self._free = deque(range(num_blocks))
        self._kept: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._keys: dict[int, bytes] = {}
        self._blocks: dict[bytes, int] = {}

    def __len__(self) -> int:
        """How many can be taken: the free and the kept ones."""
        return len(self._free) + len(self._kept)

    @property
    def size(self) -> int:
        return len(self._holders)

    @property
    def num_kept(self) -> int:
        return len(self._kept)

    def take(self) -> int:
        """A block to write into, held by the caller alone. The caller has looked that there is one."""
        if self._free:
            block = self._free.popleft()
        else:
            block, _ = self._kept.popitem(last=False)
            del self._blocks[self._keys.pop(block)]
        self._holders[block] = 1
        return block

    def find(self, key: bytes) -> int | None:
        """The block of this key, if there is one."""
        return self._blocks.get(key)

    def key_of(self, block: int) -> bytes | None:
        return self._keys.get(block)

    def holders(self, block: int) -> int:
        """How many hold the block."""
        return self._holders[block]

    def share(self, blocks: Iterable[int]) -> None:
        """The caller holds these blocks too, which it found by their keys."""
        for block in blocks:
            self._kept.pop(block, None)
            self._holders[block] += 1

    def name(self, block: int, key: bytes) -> None:
        """A block that the caller holds is full and never written again: `key` finds it from now on.

        Nothing happens if another block has the key already, whose content is the same then.
        """
        if key not in self._blocks:
            self._blocks[key] = block
            self._keys[block] = key

    def forget(self, blocks: Iterable[int]) -> None:
        """Takes the keys of blocks that the caller holds: nobody else finds them any more."""
        for block in blocks:
            key = self._keys.pop(block, None)
            if key is not None:
                del self._blocks[key]

    def give_back(self, blocks: Sequence[int]) -> None:
        """One holder less for each of a sequence's `blocks`. Raises `ValueError` for one that nobody holds.

        The end of a sequence is the first to make room later: what lies behind a missing block is never found.
        """
        for block in reversed(blocks):
            if not 0 <= block < self.size or not self._holders[block]:
                raise ValueError(f"{block} was given back, but nobody has it")
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            if block in self._keys:
                self._kept[block] = None
            else:
                self._free.append(block)

    def check_integrity(self, held: Iterable[int]) -> None:
        """Raises `ValueError` unless `held`, with a block once for each holder, and the index are as they should be."""
        owned = Counter(held)
        if any(self._holders[block] != owned[block] for block in range(self.size)) or set(owned) - set(
            range(self.size)
        ):
            raise ValueError(f"lost or owned by someone else: {sorted(owned)}, but holders are {self._holders}")
        everything = sorted([*self._free, *self._kept, *owned])
        if everything != list(range(self.size)):
            raise ValueError(f"lost or owned twice: {everything} is not {range(self.size)}")
        if {block: key for key, block in self._blocks.items()} != self._keys:
            raise ValueError("the index of keys and the keys of blocks disagree")
        if not set(self._kept) <= set(self._keys) or set(self._free) & set(self._keys):
            raise ValueError("a kept block has no key, or a free one has")
