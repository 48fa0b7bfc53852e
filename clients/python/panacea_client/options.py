"""What can be asked for, as arguments of the clients' methods."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

Question = str | Sequence[Mapping[str, Any]]
"""A question of the user's, or a whole conversation as OpenAI writes one:
`[{"role": "user", "content": "How do I boil an egg?"}, ...]`."""

Preference = Mapping[str, float] | Iterable[float] | None
"""Relative weights: by dimension (absent ones are 0), or one for each dimension in the server's order. None leaves it
to the model id: its preset, else the server's default."""


class SamplingOptions(TypedDict, total=False):
    """What every request that generates may say. Absent or None: what the server takes by default."""

    model: str | None
    """One of `client.models()`."""
    max_tokens: int | None
    """Longest answer; by default as long as the context allows."""
    temperature: float | None
    """From 0, always the likeliest token, to 2."""
    top_p: float | None
    top_k: int | None
    seed: int | None
    """The same seed gives the same answer."""
    stop: str | Sequence[str] | None
    """Up to 4 texts that end the answer, which does not contain them."""
    extra: Mapping[str, Any] | None
    """Other fields of the request's body, as the server names them."""
    timeout: float | None
    """Seconds without a byte from the server; by default the client's own."""


class StreamOptions(SamplingOptions, total=False):
    """What a streamed answer's request may say."""

    system: str | None
    """A system message in front of the conversation."""


class ChatOptions(StreamOptions, total=False):
    """What an answer's request may say."""

    n: int | None
    """How many answers, up to 16; they share the prompt."""


class CompletionOptions(SamplingOptions, total=False):
    """What a plain continuation's request may say."""

    n: int | None
    """How many continuations of each prompt, up to 16."""
