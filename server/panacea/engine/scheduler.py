"""Which request runs when. Owns the queues, the blocks and the slots; touches no tensor."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from panacea.engine.block_pool import BlockPool
from panacea.engine.prefix_keys import next_key
from panacea.engine.sequence import Request
from panacea.engine.slot_pool import Pool
from panacea.engine.waiting import WaitingQueue
from panacea.errors import RequestError


@dataclass(frozen=True)
class Work:
    """Tokens [start, start + count) of one request, to be computed in one step."""

    request: Request
    start: int
    count: int

    @property
    def samples(self) -> bool:
        """Whether the step gives this request its next token: all tokens before it are computed."""
        return self.start + self.count == self.request.num_tokens


class Scheduler:
    """Tenants take turns, and each one's requests are first come, first served (`WaitingQueue`); everyone's next token
    before anyone's prompt.

    A request is admitted when a slot is free and the blocks for all tokens it has so far. When a running request needs
    a block and none is free, the youngest running request is preempted: it loses its blocks and slot, goes to the head
    of the queue and later computes its tokens again. A request that would not fit into the whole cache is never
    accepted, so the oldest always gets to its end.

    Full blocks whose tokens are known get a key (`prefix_keys`), and a request that is admitted, for the first time or
    again, begins behind the longest prefix of its tokens that the pool has. Its last token is always computed, because
    its logits are what comes next, and so no block with a key is ever written.
    """

    def __init__(
        self, num_blocks: int, block_size: int, max_batch: int, max_step_tokens: int, context_length: int
    ) -> None:
        self.block_size = block_size
        self.max_step_tokens = max_step_tokens
        self.context_length = min(context_length, num_blocks * block_size)
        self.blocks = BlockPool(num_blocks)
        self.slots = Pool(range(1, max_batch + 1))  # slot 0 pads the batches of CUDA graphs
        self.waiting = WaitingQueue()
        self.running: list[Request] = []  # oldest first
        self.preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def check(self, request: Request) -> None:
        """Raises `RequestError` if the request could never be served."""
        if not request.prompt_ids:
            raise RequestError("the prompt is empty", "prompt")
        if len(request.prompt_ids) + min(1, request.params.max_tokens) > self.context_length:
            raise RequestError(
                f"the prompt has {len(request.prompt_ids)} tokens, but this server's context of {self.context_length} "
                f"tokens must hold prompt and answer",
                "prompt",
            )
        if request.most_tokens > self.context_length:
            raise RequestError(
                f"a prompt of {len(request.prompt_ids)} tokens and max_tokens {request.params.max_tokens} do not fit "
                f"into this server's context of {self.context_length} tokens",
                "max_tokens",
            )

    def add(self, request: Request) -> None:
        """Queues a request. Raises `RequestError` if it could never be served."""
        self.check(request)
        self.waiting.append(request)

    def remove(self, request: Request) -> None:
        """Forgets a request, finished or aborted, wherever it is, and takes back all it holds."""
        if request in self.running:
            self.running.remove(request)
            self._release(request)
        else:
            self.waiting.remove(request)

    def distrust(self, request: Request) -> None:
        """Nobody finds the request's blocks as a cached prefix any more: what it computed may be wrong."""
        self.blocks.forget(request.blocks)

    def schedule(self) -> list[Work]:
        """The next step's work, single tokens first. Empty when nothing runs but what awaits its last token."""
        work: list[Work] = []
        decoding = sum(
            request.num_tokens - request.computed == 1 and not request.awaits_token for request in self.running
        )
        prefill_budget = self.max_step_tokens - decoding
        preempted = self.preemptions
        for request in list(self.running):
            if request.slot is None or request.awaits_token:
                continue  # the first: preempted a moment ago, for an older request
            left = request.num_tokens - request.computed
            count = left if left == 1 else min(left, prefill_budget)
            if count and self._reserve(request, request.computed + count):
                work.append(Work(request, request.computed, count))
                prefill_budget -= count if left > 1 else 0
        while self.waiting and prefill_budget and self.preemptions == preempted and self._admit(self.waiting.first):
            request = self.waiting.pop()
            self.running.append(request)
            count = min(request.num_tokens - request.computed, prefill_budget)
            self._extend(request, request.computed + count)
            work.append(Work(request, request.computed, count))
            prefill_budget -= count
        work.sort(key=lambda item: item.count > 1)  # stable: oldest first within each kind
        return work

    def advance(self, work: Iterable[Work]) -> None:
        """A step that computes this work was launched. What it samples is unknown until `learn`.

        Steps run in the order of their launch, so what this one computes is there for all that come after it.
        """
        for item in work:
            samples = item.samples
            item.request.computed = item.start + item.count
            if item.request.needs_prompt_logits:
                item.request.scored = max(item.request.scored, item.request.computed)
            item.request.unknown += samples
            self._name_blocks(item.request)

    def learn(self, request: Request, token_id: int) -> None:
        """The oldest unknown token of a request is known now."""
        request.unknown -= 1
        request.output_ids.append(token_id)
        self._name_blocks(request)

    def check_integrity(self) -> None:
        """Raises `ValueError` if a block or slot is lost or owned twice, an idle request holds any, a block that others
        may find could still be written, or a key does not fit the tokens."""
        self.blocks.check_integrity(block for request in self.running for block in request.blocks)
        self.slots.check_integrity(request.slot for request in self.running if request.slot is not None)
        for request in self.waiting:
            if request.blocks or request.slot is not None or request.computed or request.named:
                raise ValueError(f"waiting request {request.request_id} holds something")
        for request in self.running:
            if len(request.blocks) * self.block_size < request.computed:
                raise ValueError(f"request {request.request_id} has fewer blocks than tokens")
            self._check_keys(request)

    def _check_keys(self, request: Request) -> None:
        for index, block in enumerate(request.blocks):
            key = self.blocks.key_of(block)
            if index >= request.named:
                if key is not None or self.blocks.holders(block) != 1:
                    raise ValueError(f"request {request.request_id} may write block {block}, which others can find")
            elif key not in (None, request.keys[index]):
                raise ValueError(f"block {block} of request {request.request_id} has another prefix's key")
        key = request.prefix_root
        for index, known in enumerate(request.keys):
            assert key is not None
            key = next_key(key, request.tokens(index * self.block_size, self.block_size))
            if key != known:
                raise ValueError(f"key {index} of request {request.request_id} is not of its tokens")

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def _admit(self, request: Request) -> bool:
        """Gives the request a slot and its cached prefix, if a slot and blocks for all its other tokens are free."""
        if not len(self.slots):
            return False
        cached = self._cached_blocks(request)
        kept = sum(self.blocks.holders(block) == 0 for block in cached)  # free so far, but not for others any more
        if len(self.blocks) - kept < self._blocks_for(request.num_tokens) - len(cached):
            return False
        self.blocks.share(cached)
        request.blocks = cached
        request.named = len(cached)
        request.computed = len(cached) * self.block_size
        request.slot = self.slots.take()
        request.admissions += 1
        if request.started_at is None:
            request.started_at = time.monotonic()
        if request.prefix_root is not None and request.admissions == 1:
            request.cached_tokens = request.computed
            self.prefix_queries += len(request.prompt_ids)
            self.prefix_hits += request.cached_tokens
        return True

    def _cached_blocks(self, request: Request) -> list[int]:
        """The blocks that hold the longest cached prefix of the request's tokens, without its last token."""
        blocks: list[int] = []
        if request.prefix_root is None or request.needs_prompt_logits:
            return blocks
        for index in range(min(request.num_known, request.num_tokens - 1) // self.block_size):
            block = self.blocks.find(self._key(request, index))
            if block is None:
                break
            blocks.append(block)
        return blocks

    def _name_blocks(self, request: Request) -> None:
        """Lets others find what is full, computed and known of the request."""
        if request.prefix_root is None:
            return
        for index in range(request.named, min(request.computed, request.num_known) // self.block_size):
            self.blocks.name(request.blocks[index], self._key(request, index))
            request.named = index + 1

    def _key(self, request: Request, index: int) -> bytes:
        """The key of the request's block at `index`, all of whose tokens are known."""
        keys = request.keys
        for position in range(len(keys), index + 1):
            before = keys[-1] if keys else request.prefix_root
            assert before is not None, "only requests that use the prefix cache have keys"
            keys.append(next_key(before, request.tokens(position * self.block_size, self.block_size)))
        return keys[index]

    def _reserve(self, request: Request, tokens: int) -> bool:
        """Gives `request` blocks for its first `tokens` tokens, at the cost of younger ones. False: it went itself."""
        while self._blocks_for(tokens) - len(request.blocks) > len(self.blocks):
            youngest = self.running[-1]
            self._preempt(youngest)
            if youngest is request:
                return False
        self._extend(request, tokens)
        return True

    def _extend(self, request: Request, tokens: int) -> None:
        request.blocks.extend(self.blocks.take() for _ in range(self._blocks_for(tokens) - len(request.blocks)))

    def _preempt(self, request: Request) -> None:
        self.running.remove(request)
        self._release(request)
        self.waiting.put_back(request)
        self.preemptions += 1

    def _release(self, request: Request) -> None:
        self.blocks.give_back(request.blocks)
        if request.slot is not None:
            self.slots.give_back([request.slot])
        request.blocks = []
        request.slot = None
        request.computed = 0
        request.named = 0
