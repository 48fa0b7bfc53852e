"""The types of the arguments of the clients' methods."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

Question = str | Sequence[Mapping[str, Any]]
"""A user's question, or a conversation in OpenAI's format:
`[{"role": "user", "content": "How do I boil an egg?"}, ...]`."""

Preference = Mapping[str, float] | Iterable[float] | None
"""Relative weights: by dimension (absent dimensions are 0), or one per dimension in the server's order. None selects
the preset of the model id, else the server's default."""


class SamplingOptions(TypedDict, total=False):
    """Options of all requests that generate text. An absent option or None selects the server's default."""

    model: str | None
    """A model id of `client.models()`."""
    max_tokens: int | None
    """Maximum tokens of the answer. Default: the rest of the context, or 16 for `complete`."""
    temperature: float | None
    """Sampling temperature from 0 (greedy) to 2."""
    top_p: float | None
    top_k: int | None
    seed: int | None
    """The same seed gives the same answer."""
    stop: str | Sequence[str] | None
    """Up to 4 texts that end the answer. They are not part of it."""
    extra: Mapping[str, Any] | None
    """Other fields of the request's body, with the server's names."""
    timeout: float | None
    """Seconds without a byte from the server. Default: the client's timeout."""


class StreamOptions(SamplingOptions, total=False):
    """Options of a streamed chat answer."""

    system: str | None
    """A system message in front of the conversation."""


class ChatOptions(StreamOptions, total=False):
    """Options of a chat answer."""

    n: int | None
    """Number of choices, up to 16. They share the prompt."""


class CompletionOptions(SamplingOptions, total=False):
    """Options of a text completion."""

    n: int | None
    """Number of continuations per prompt, up to 16."""
