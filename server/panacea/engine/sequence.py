"""One sequence being generated, and what it holds while it runs. No tensors."""

import time
from dataclasses import dataclass, field

from panacea.engine.grammar import Grammar
from panacea.engine.sampling_params import SamplingParams
from panacea.preference import Preference

UNKNOWN_TOKEN = -1
"""Stands for a token that only the device knows so far."""


@dataclass(eq=False)
class Request:
    """A request's whole life.

    The scheduler alone changes `computed`, `scored`, `unknown`, `blocks`, `keys`, `named`, `slot`, `admissions`,
    `started_at` and `cached_tokens`.
    """

    request_id: str
    prompt_ids: list[int]
    preference: Preference | None
    """None is the bare base model."""
    params: SamplingParams
    output_ids: list[int] = field(default_factory=list[int])
    grammar: Grammar | None = None
    """What its answer has to follow, and how far that is followed: behind `output_ids`."""
    unknown: int = 0
    """Tokens at the end of the answer that a running step samples: the device knows them, the host not yet."""
    computed: int = 0
    """Tokens whose keys and values are in the cache."""
    scored: int = 0
    """Tokens at the beginning of the prompt whose successors' log probabilities are computed or on their way, if the
    request wants those. Unlike `computed` it stays when the request is preempted."""
    blocks: list[int] = field(default_factory=list[int])
    tenant: str = ""
    """Whose it is: tenants take turns."""
    prefix_root: bytes | None = None
    """What the keys of its blocks begin with; None: it neither uses nor fills the prefix cache."""
    keys: list[bytes] = field(default_factory=list[bytes])
    """Of its first full blocks, as far as somebody asked for them. They stay when the blocks go."""
    named: int = 0
    """How many of its blocks, from the first, others may find: those that are computed and full of known tokens."""
    slot: int | None = None
    """Its line in the device's tables of preferences, blocks and last tokens, while running. Line 0 is nobody's."""
    admissions: int = 0
    """How often it was given a slot."""
    arrived_at: float = field(default_factory=time.monotonic)
    started_at: float | None = None
    """When it was first given a slot, by the same clock."""
    cached_tokens: int = 0
    """Tokens of the prompt that were in the prefix cache when it was first admitted."""

    @property
    def num_outputs(self) -> int:
        return len(self.output_ids) + self.unknown

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + self.num_outputs

    @property
    def num_known(self) -> int:
        """Tokens that the host knows."""
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def is_complete(self) -> bool:
        """Whether the last token that it may have is sampled, known or not."""
        return self.num_outputs >= max(1, self.params.max_tokens)  # a scored prompt's token is drawn and dropped

    @property
    def awaits_token(self) -> bool:
        """Whether no step can do anything for it before a running one has told its token.

        That token is its last, or decides what its grammar allows next. So a request with a grammar is in every second
        step where steps are launched ahead; others do not wait for it.
        """
        return self.is_complete or (self.grammar is not None and self.unknown > 0)

    @property
    def needs_prompt_logits(self) -> bool:
        """Whether the model has to be run over prompt tokens for their successors' log probabilities.

        While it has to, such a request may not take the keys and values of its prompt from a cache: whoever skips a
        token's computation gets no logits from it.
        """
        return self.params.prompt_logprobs is not None and self.scored < len(self.prompt_ids) - 1

    @property
    def most_tokens(self) -> int:
        """Tokens whose keys and values the cache must be able to hold at the very end."""
        return len(self.prompt_ids) + self.params.max_tokens

    def tokens(self, start: int, count: int) -> list[int]:
        """Tokens [start, start + count) of prompt and answer, `UNKNOWN_TOKEN` where the host does not know them yet."""
        prompt = len(self.prompt_ids)
        if start >= prompt:
            known = self.output_ids[start - prompt : start - prompt + count]
        else:
            known = [*self.prompt_ids[start : start + count], *self.output_ids[: max(0, start + count - prompt)]]
        return known + [UNKNOWN_TOKEN] * (count - len(known))
