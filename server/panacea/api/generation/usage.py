"""What the answers of all routes that generate have in common."""

from panacea.api.fields import Documented

_LEAST_LOGPROB = -9999.0
"""OpenAI's stand-in for a logarithm that JSON cannot write."""


class PromptTokensDetails(Documented):
    """What the prompts' tokens were."""

    cached_tokens: int
    """Tokens that the prefix cache had; of several answers to one prompt the first one's count."""


class Usage(Documented):
    """Tokens of all prompts, and of all choices together."""

    prompt_tokens: int
    """Of all prompts."""
    completion_tokens: int
    """Of all choices."""
    total_tokens: int
    """Both together."""
    prompt_tokens_details: PromptTokensDetails
    """Which of the prompts' tokens were cached."""


class AnswerHead(Documented):
    """Base of whole answers and of chunks."""

    id: str
    """Of this answer."""
    created: int
    """When it began, in seconds since 1970."""
    model: str
    """The id that answered."""
    preference: dict[str, float] | None
    """The weights that were used, with sum 1; null for the bare base model."""


def shown_logprob(logprob: float) -> float:
    """A log probability as answers carry it."""
    return max(logprob, _LEAST_LOGPROB)
