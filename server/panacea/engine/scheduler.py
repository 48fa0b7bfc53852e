"""Decides which sequences each step computes. Owns the queues, the blocks and the slots; uses no tensors."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from panacea.engine.block_pool import BlockPool
from panacea.engine.prefix_cache import PrefixCache
from panacea.engine.prefix_keys import ModelIdentity
from panacea.engine.sequence import Sequence
from panacea.engine.slot_pool import SlotPool
from panacea.engine.waiting_queue import WaitingQueue
from panacea.errors import RequestError


@dataclass(frozen=True)
class Work:
    """Tokens [start, start + count) of one sequence, to be computed in one step."""

    sequence: Sequence
    start: int
    count: int

    @property
    def samples(self) -> bool:
        """Whether the step samples the sequence's next token: all tokens before it are computed."""
        return self.start + self.count == self.sequence.num_tokens


class Scheduler:
    """Schedules the next token of every running sequence before any prompt. Tenants share the engine (`WaitingQueue`).

    A sequence is admitted when a slot and the blocks for all its present tokens are free. When a running sequence
    needs a block and none is free, the youngest running sequence is preempted. It loses its blocks and its slot, goes
    to the head of the queue, and later computes its tokens again. A sequence that would not fit into the whole cache
    is never accepted, so the oldest sequence always finishes.

    A sequence that is admitted, for the first time or again, starts behind the longest prefix that `PrefixCache` finds.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        max_batch: int,
        max_step_tokens: int,
        context_length: int,
        identity: ModelIdentity | None = None,
    ) -> None:
        """`identity` names the model whose prefixes are cached. None turns the prefix cache off."""
        self.block_size = block_size
        self.max_step_tokens = max_step_tokens
        self.context_length = min(context_length, num_blocks * block_size)
        self.blocks = BlockPool(num_blocks)
        self.prefix_cache = PrefixCache(self.blocks, block_size, identity)
        self.slots = SlotPool(range(1, max_batch + 1))  # slot 0 pads the batches of CUDA graphs
        self.waiting = WaitingQueue()
        self.running: list[Sequence] = []  # oldest first
        self.preemptions = 0

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def check(self, sequence: Sequence) -> None:
        """Raises `RequestError` if the sequence could never be served."""
        prompt, max_tokens = len(sequence.request.prompt_ids), sequence.request.params.max_tokens
        if not prompt:
            raise RequestError("the prompt is empty", "prompt")
        if prompt + min(1, max_tokens) > self.context_length:
            raise RequestError(
                f"the prompt has {prompt} tokens, but prompt and answer must fit into this server's context of "
                f"{self.context_length} tokens: shorten the prompt",
                "prompt",
            )
        if sequence.most_tokens > self.context_length:
            raise RequestError(
                f"a prompt of {prompt} tokens and max_tokens {max_tokens} do not fit into this server's context of "
                f"{self.context_length} tokens: shorten the prompt or lower max_tokens",
                "max_tokens",
            )

    def add(self, sequence: Sequence) -> None:
        """Queues a sequence. Raises `RequestError` if it could never be served."""
        self.check(sequence)
        self.prefix_cache.register(sequence)
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Removes a sequence, finished or aborted, from wherever it is, and frees all it holds."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
        else:
            self.waiting.remove(sequence)
        if not self.has_work:
            self.waiting.forget_charges()

    def schedule(self) -> list[Work]:
        """The next step's work, single tokens first. Empty if no sequence can run before a pending token is known."""
        work: list[Work] = []
        decoding = sum(
            sequence.num_tokens - sequence.computed == 1 and not sequence.awaits_token for sequence in self.running
        )
        prefill_budget = self.max_step_tokens - decoding
        preempted = self.preemptions
        for sequence in list(self.running):
            if sequence.slot is None or sequence.awaits_token:
                continue  # no slot: it was preempted in this loop, for an older sequence
            left = sequence.num_tokens - sequence.computed
            count = left if left == 1 else min(left, prefill_budget)
            if count and self._reserve(sequence, sequence.computed + count):
                work.append(Work(sequence, sequence.computed, count))
                prefill_budget -= count if left > 1 else 0
        has_room = self.preemptions == preempted
        # The slots come before those who wait: finding the first of them takes time for each tenant.
        while has_room and prefill_budget and len(self.slots) and self.waiting and self._admit(self.waiting.first):
            sequence = self.waiting.pop()
            if sequence.admissions == 1:  # a preempted one has paid, and is not at fault
                self.waiting.charge(sequence.request.tenant, sequence.num_tokens - sequence.computed)
            self.running.append(sequence)
            count = min(sequence.num_tokens - sequence.computed, prefill_budget)
            self._extend(sequence, sequence.computed + count)
            work.append(Work(sequence, sequence.computed, count))
            prefill_budget -= count
        work.sort(key=lambda item: item.count > 1)  # stable: oldest first within each kind
        return work

    def advance(self, work: Iterable[Work]) -> None:
        """Records that a step with this work was launched. Its sampled tokens are pending until `append_token`.

        Steps run in the order of their launch, so every later step can read what this one computes.
        """
        for item in work:
            sequence, samples = item.sequence, item.samples
            sequence.computed = item.start + item.count
            if sequence.needs_prompt_logits:
                sequence.scored = max(sequence.scored, sequence.computed)
            sequence.num_pending += samples
            if samples:
                self.waiting.charge(sequence.request.tenant, 1)
            self.prefix_cache.publish(sequence)

    def append_token(self, sequence: Sequence, token_id: int) -> None:
        """Records the sequence's oldest pending token, which has arrived on the host."""
        sequence.num_pending -= 1
        sequence.output_ids.append(token_id)
        self.prefix_cache.publish(sequence)

    def check_integrity(self) -> None:
        """Raises `ValueError` if a block or slot is lost or owned twice, a waiting sequence holds any, or the prefix
        cache is inconsistent."""
        self.blocks.check_integrity(block for sequence in self.running for block in sequence.blocks)
        self.slots.check_integrity(sequence.slot for sequence in self.running if sequence.slot is not None)
        for sequence in self.waiting:
            if sequence.blocks or sequence.slot is not None or sequence.computed or sequence.published:
                raise ValueError(f"waiting sequence {sequence.request_id} holds blocks or a slot")
        for sequence in self.running:
            if len(sequence.blocks) * self.block_size < sequence.computed:
                raise ValueError(f"sequence {sequence.request_id} has fewer blocks than tokens")
            self.prefix_cache.check_integrity(sequence)

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def _admit(self, sequence: Sequence) -> bool:
        """Gives the sequence a slot and its cached prefix, if blocks for all its other tokens are free."""
        cached = self.prefix_cache.find(sequence)
        kept = sum(self.blocks.holders(block) == 0 for block in cached)  # free now, but this sequence will hold them
        if len(self.blocks) - kept < self._blocks_for(sequence.num_tokens) - len(cached):
            return False
        self.blocks.share(cached)
        sequence.blocks = cached
        sequence.computed = len(cached) * self.block_size
        sequence.slot = self.slots.allocate()
        sequence.admissions += 1
        self.prefix_cache.admitted(sequence, cached)
        if sequence.started_at is None:
            sequence.started_at = time.monotonic()
            sequence.cached_tokens = sequence.computed
        return True

    def _reserve(self, sequence: Sequence, tokens: int) -> bool:
        """Gives the sequence blocks for its first `tokens` tokens, and preempts younger ones for them.

        False: the sequence itself was preempted.
        """
        while self._blocks_for(tokens) - len(sequence.blocks) > len(self.blocks):
            youngest = self.running[-1]
            self._preempt(youngest)
            if youngest is sequence:
                return False
        self._extend(sequence, tokens)
        return True

    def _extend(self, sequence: Sequence, tokens: int) -> None:
        missing = self._blocks_for(tokens) - len(sequence.blocks)
        sequence.blocks.extend(self.blocks.allocate() for _ in range(missing))

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        self.waiting.requeue(sequence)
        self.preemptions += 1

    def _release(self, sequence: Sequence) -> None:
        self.blocks.release(sequence.blocks)
        if sequence.slot is not None:
            self.slots.release([sequence.slot])
        sequence.blocks = []
        sequence.slot = None
        sequence.computed = 0
        sequence.published = 0
