"""The engine's mutable record of one request and of the resources that it holds. No tensors."""

import time
from dataclasses import dataclass, field

from panacea.engine.grammar import Grammar
from panacea.engine.request import Request

PENDING_TOKEN = -1
"""Placeholder for a sampled token that is known on the device and not yet on the host."""


@dataclass(eq=False)
class Sequence:
    """One request from its arrival to its last token.

    Each field has one writer:

    - `Engine`: `grammar`, before the sequence is queued.
    - `Scheduler`: `output_ids`, `num_pending`, `computed`, `scored`, `blocks`, `slot`, `admissions`, `started_at`,
      `cached_tokens`.
    - `PrefixCache`: `prefix_root`, `keys`.
    - `published`: `PrefixCache`, and `Scheduler` when it frees the blocks.

    All other code only reads them. `request` never changes.
    """

    request_id: str
    request: Request
    grammar: Grammar | None = None
    """The grammar that the answer follows, and its state after `output_ids`."""
    output_ids: list[int] = field(default_factory=list[int])
    """Tokens of the answer that the host knows."""
    num_pending: int = 0
    """Tokens at the end of the answer that running steps sample. The host does not know them yet."""
    computed: int = 0
    """Tokens whose keys and values are in the KV cache."""
    scored: int = 0
    """Tokens at the start of the prompt for which the next token's log probability is computed or launched, if the
    request asks for it. Preemption resets `computed` and keeps this."""
    blocks: list[int] = field(default_factory=list[int])
    """Blocks of the KV cache, in the order of the tokens."""
    prefix_root: bytes | None = None
    """Start of the chain of block keys. None: the sequence neither reads nor fills the prefix cache."""
    keys: list[bytes] = field(default_factory=list[bytes])
    """Keys of the first full blocks, computed on demand and kept after the blocks are freed."""
    published: int = 0
    """Number of blocks, from the first, that other sequences can find: computed, and full of known tokens."""
    slot: int | None = None
    """Row in the device's tables of preferences, blocks and last tokens while it runs. Row 0 belongs to no sequence."""
    admissions: int = 0
    """How many times it was given a slot."""
    arrived_at: float = field(default_factory=time.monotonic)
    started_at: float | None = None
    """Time of the first slot, by the same clock."""
    cached_tokens: int = 0
    """Prompt tokens found in the prefix cache at the first admission."""

    @property
    def num_outputs(self) -> int:
        return len(self.output_ids) + self.num_pending

    @property
    def num_tokens(self) -> int:
        return len(self.request.prompt_ids) + self.num_outputs

    @property
    def num_known(self) -> int:
        """Tokens that the host knows."""
        return len(self.request.prompt_ids) + len(self.output_ids)

    @property
    def is_complete(self) -> bool:
        """Whether the last token that `max_tokens` allows is sampled, known or not."""
        return self.num_outputs >= max(1, self.request.params.max_tokens)  # max_tokens 0: one is drawn and dropped

    @property
    def awaits_token(self) -> bool:
        """Whether no step can compute anything for it until a running step has returned its token.

        That token is its last one, or decides what its grammar allows next. If steps are launched ahead, a sequence
        with a grammar is therefore in every second step only. Other sequences do not wait for it.
        """
        return self.is_complete or (self.grammar is not None and self.num_pending > 0)

    @property
    def needs_prompt_logits(self) -> bool:
        """Whether prompt tokens must still go through the model because the prompt's log probabilities are wanted.

        Such a sequence must not take its prompt's keys and values from the prefix cache, because a token that is not
        computed gives no logits.
        """
        return self.request.params.prompt_logprobs is not None and self.scored < len(self.request.prompt_ids) - 1

    @property
    def most_tokens(self) -> int:
        """Most tokens of prompt and answer together. The KV cache must have space for all of them."""
        return len(self.request.prompt_ids) + self.request.params.max_tokens

    def tokens(self, start: int, count: int) -> list[int]:
        """Tokens [start, start + count) of prompt and answer, `PENDING_TOKEN` where the host does not know them yet."""
        prompt_ids = self.request.prompt_ids
        prompt = len(prompt_ids)
        if start >= prompt:
            known = self.output_ids[start - prompt : start - prompt + count]
        else:
            known = [*prompt_ids[start : start + count], *self.output_ids[: max(0, start + count - prompt)]]
        return known + [PENDING_TOKEN] * (count - len(known))
