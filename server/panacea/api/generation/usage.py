"""The fields that all generated answers have in common."""

from panacea.api.fields import Documented

_LEAST_LOGPROB = -9999.0
"""OpenAI's value for minus infinity, which JSON cannot represent."""


class PromptTokensDetails(Documented):
    """Details of the prompts' tokens."""

    cached_tokens: int
    """Prompt tokens found in the prefix cache. Of several choices for one prompt, only the first one counts."""


class Usage(Documented):
    """Numbers of tokens, summed over all prompts and choices."""

    prompt_tokens: int
    """Tokens of all prompts."""
    completion_tokens: int
    """Tokens of all choices."""
    total_tokens: int
    """Sum of both."""
    prompt_tokens_details: PromptTokensDetails | None
    """Number of cached prompt tokens. Null if the server hides it."""


class AnswerHead(Documented):
    """Fields of whole answers and of chunks."""

    id: str
    """Id of this answer."""
    created: int
    """When the answer began, in seconds since 1970."""
    model: str
    """The model id of the request, or the default one."""
    preference: dict[str, float] | None
    """The weights that were used, with sum 1. They are null for the bare base model."""


def shown_logprob(logprob: float) -> float:
    """A log probability as a finite number."""
    return max(logprob, _LEAST_LOGPROB)
