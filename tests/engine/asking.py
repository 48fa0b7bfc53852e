"""Requests for an engine, several at once."""

from collections.abc import Sequence

from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.preference import Preference


def requests(
    prompts: Sequence[Sequence[int]],
    preferences: Sequence[Preference | None],
    params: SamplingParams | Sequence[SamplingParams],
    cache_salt: str = "",
) -> list[Request]:
    """One for each prompt with its preference; `params` is one for all, or one for each."""
    each = [params] * len(prompts) if isinstance(params, SamplingParams) else params
    return [
        Request(prompt, preference, own, cache_salt)
        for prompt, preference, own in zip(prompts, preferences, each, strict=True)
    ]
