"""What the sampler needs to know of the request behind a row of logits."""

from dataclasses import dataclass

from panacea.engine.sampling_params import SamplingParams


@dataclass(frozen=True)
class SamplingRow:
    """A request whose next token is chosen now."""

    params: SamplingParams
    position: int
    """How many tokens the answer has already."""
    banned: tuple[int, ...]
    """Tokens that may not come now (those that end an answer, before `min_tokens`)."""
    slot: int = 0
    """Its line in `Adjustments`; of no matter to requests that ask for no bias and no penalty."""
    allowed: bytes | None = None
    """A bit for each token, 1 where it may come now (see `Grammar.mask`); None: all may."""
