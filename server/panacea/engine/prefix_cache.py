"""The prefix cache: full blocks get a key, and later sequences find them by it."""

from panacea.engine.block_pool import BlockPool
from panacea.engine.prefix_keys import ModelIdentity, next_key, root_key
from panacea.engine.sequence import Sequence


class PrefixCache:
    """Publishes the full blocks of running sequences, and finds the longest cached prefix of a new one.

    A block is published once it is computed and the host knows all its tokens. Its key covers everything that its
    keys and values depend on (`prefix_keys`). The last token of a sequence is never taken from the cache, because its
    logits give the next token. A published block is therefore never written again.
    """

    def __init__(self, blocks: BlockPool, block_size: int, identity: ModelIdentity | None) -> None:
        """`identity` names the model whose prefixes are cached. None turns the cache off."""
        self.queries = 0
        """Prompt tokens that were looked up, once for each request."""
        self.hits = 0
        """Tokens of these that were found."""
        self._blocks = blocks
        self._block_size = block_size
        self._identity = identity

    def register(self, sequence: Sequence) -> None:
        """Sets the start of the sequence's chain of keys."""
        if self._identity is not None:
            request = sequence.request
            sequence.prefix_root = root_key(self._identity, request.preference, request.cache_salt)

    def find(self, sequence: Sequence) -> list[int]:
        """The blocks that hold the longest cached prefix of the sequence's tokens, without its last token."""
        blocks: list[int] = []
        if sequence.prefix_root is None or sequence.needs_prompt_logits:
            return blocks
        for index in range(min(sequence.num_known, sequence.num_tokens - 1) // self._block_size):
            block = self._blocks.find(self._key(sequence, index))
            if block is None:
                break
            blocks.append(block)
        return blocks

    def admitted(self, sequence: Sequence, cached: list[int]) -> None:
        """Records that the sequence was admitted with the blocks that `find` returned."""
        sequence.published = len(cached)
        if sequence.prefix_root is not None and sequence.admissions == 1:
            self.queries += len(sequence.request.prompt_ids)
            self.hits += len(cached) * self._block_size

    def publish(self, sequence: Sequence) -> None:
        """Lets other sequences find every block that is full, computed and known."""
        if sequence.prefix_root is None:
            return
        for index in range(sequence.published, min(sequence.computed, sequence.num_known) // self._block_size):
            self._blocks.publish(sequence.blocks[index], self._key(sequence, index))
            sequence.published = index + 1

    def invalidate(self, sequence: Sequence) -> None:
        """Removes the sequence's blocks from the cache: their content may be wrong."""
        self._blocks.invalidate(sequence.blocks)

    def check_integrity(self, sequence: Sequence) -> None:
        """Raises `ValueError` if a block that others can find could still be written, or a key does not fit its
        tokens."""
        for index, block in enumerate(sequence.blocks):
            key = self._blocks.key_of(block)
            if index >= sequence.published:
                if key is not None or self._blocks.holders(block) != 1:
                    raise ValueError(f"sequence {sequence.request_id} may write block {block}, which others can find")
            elif key not in (None, sequence.keys[index]):
                raise ValueError(f"block {block} of sequence {sequence.request_id} has the key of another prefix")
        key = sequence.prefix_root
        for index, known in enumerate(sequence.keys):
            assert key is not None
            key = next_key(key, sequence.tokens(index * self._block_size, self._block_size))
            if key != known:
                raise ValueError(f"key {index} of sequence {sequence.request_id} does not fit its tokens")

    def _key(self, sequence: Sequence, index: int) -> bytes:
        """The key of the sequence's block at `index`. The host must know all its tokens."""
        keys = sequence.keys
        for position in range(len(keys), index + 1):
            before = keys[-1] if keys else sequence.prefix_root
            assert before is not None, "only sequences that use the prefix cache have keys"
            keys.append(next_key(before, sequence.tokens(position * self._block_size, self._block_size)))
        return keys[index]
