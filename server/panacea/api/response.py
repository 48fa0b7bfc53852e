"""What the answers of all routes that generate have in common."""

from pydantic import BaseModel

_LEAST_LOGPROB = -9999.0
"""OpenAI's stand-in for a logarithm that JSON cannot write."""


class PromptTokensDetails(BaseModel):
    """What the prompts' tokens were."""

    cached_tokens: int
    """Tokens that the prefix cache had; of several answers to one prompt the first one's count."""


class Usage(BaseModel):
    """Tokens of all prompts, and of all choices together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class AnswerHead(BaseModel):
    """Base of whole answers and of chunks."""

    id: str
    created: int
    model: str
    preference: dict[str, float] | None
    """The weights that were used, with sum 1; null for the bare base model."""


def shown_logprob(logprob: float) -> float:
    """A log probability as answers carry it."""
    return max(logprob, _LEAST_LOGPROB)
