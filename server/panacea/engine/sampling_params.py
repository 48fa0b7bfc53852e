"""How one request wants its tokens chosen. A plain dataclass: the in-process engine needs no msgspec."""

from dataclasses import dataclass

MAX_LOGPROBS = 20
"""Alternatives per position that a request may ask for (OpenAI's limit)."""


@dataclass(frozen=True)
class SamplingParams:
    """Sampling of one request.

    Noise is a function of (`seed`, `choice`, output position) alone, so a request gives the same tokens alone and in
    any batch.
    """

    max_tokens: int
    """Most tokens to generate; at least 1."""
    temperature: float = 1.0
    """0 is greedy: the most likely token, the lowest id on a tie."""
    top_p: float = 1.0
    """Keep the most likely tokens until their probability reaches this; in (0, 1]."""
    top_k: int = 0
    """Keep at most this many tokens; 0 keeps all."""
    seed: int = 0
    """Any 64-bit integer. Callers that want fresh noise draw one."""
    choice: int = 0
    """Which of a request's `n` answers this is: answers of one seed differ by it."""
    min_tokens: int = 0
    """No end-of-sequence or stop token before this many tokens."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end the answer, besides the model's own end-of-sequence tokens."""
    ignore_eos: bool = False
    """Go on after an end-of-sequence token (benchmarks want answers of equal length)."""
    logprobs: int | None = None
    """None: none. Otherwise the chosen token's log probability and this many alternatives (0 to 20)."""
