"""The sampler's input for one row of logits, besides the logits."""

from dataclasses import dataclass

from panacea.engine.sampling_params import SamplingParams


@dataclass(frozen=True)
class SamplingRow:
    """A request whose next token this step samples."""

    params: SamplingParams
    position: int
    """Number of tokens in the answer before this one."""
    banned: tuple[int, ...]
    """Tokens that are not allowed here: those that end an answer, before `min_tokens`."""
    slot: int = 0
    """The request's row in the tables of `Adjustments`. Only biases and penalties read it."""
    allowed: bytes | None = None
    """One bit per token, 1 if the token is allowed here (see `Grammar.mask`). None allows all."""
