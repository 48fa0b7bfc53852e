"""The longest sequence that a model is made for, by vLLM's rules. This module does not import torch."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from panacea.errors import CheckpointError, OptionError

_SETTINGS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
"""Where configs give the length. The smallest counts."""
_SCALED_ALREADY = ("default", "llama3", "longrope")
"""Types of RoPE scaling whose factor is part of the config's length."""


MOST_TOKENS = 1 << 24
"""Longest context that is taken without being asked for. The fused forward stores an angle for each position."""


def context_length(text: Mapping[str, Any], folder: Path | None, max_context: int | None) -> int:
    """Most tokens of prompt and answer together, by the text config `text` and the tokenizer's config in `folder`.

    `max_context` is the user's choice of fewer. Raises `OptionError` if it asks for more than the model has, and
    `CheckpointError` if the model has no limit that is known, or a scaling that is not supported.
    """
    lengths = [value for name in _SETTINGS if isinstance(value := text.get(name), int)]
    limit: float | None = text.get("model_max_length") or min(lengths, default=None)
    tokenizers = None if folder is None else _tokenizer_length(folder)
    if limit is not None and tokenizers is not None:
        limit = min(limit, tokenizers)
    if limit is None:
        if max_context is None:
            raise CheckpointError(f"{text.get('model_type')} has no max_position_embeddings: give max_context")
        return max_context
    try:
        limit = int(1.0 * _scaled(limit, text))  # a text times a number is a text, but not times 1.0
    except (TypeError, ValueError, ArithmeticError, AttributeError):
        raise CheckpointError("rope_parameters of config.json are not valid") from None
    if limit > MOST_TOKENS and max_context is None:
        raise CheckpointError(f"the model's context is {limit} tokens, more than {MOST_TOKENS}: give max_context")
    if max_context is not None and max_context > limit:
        raise OptionError("max_context", f"is {max_context}, but the model is made for at most {limit} tokens")
    return limit if max_context is None else max_context


def _scaled(limit: float, text: Mapping[str, Any]) -> float:
    """`limit` with the model's RoPE scaling."""
    model_type = str(text.get("model_type"))
    factor = 1.0
    for rope in _scalings(text):
        kind = rope.get("rope_type", "default")
        original: int = rope.get("original_max_position_embeddings") or text.get(
            "original_max_position_embeddings", limit
        )
        if kind == "dynamic":
            raise CheckpointError("rope_type 'dynamic' is not supported: it depends on the longest request of a batch")
        if kind == "longrope":
            # Beyond this length the embedding of every position changes, including those in the cache.
            limit = min(limit, original)
        if kind in _SCALED_ALREADY or "gemma3" in model_type:  # Gemma 3's length counts its linear scaling
            continue
        if kind == "yarn":
            limit, factor = original, rope.get("factor") or limit / original
        else:
            factor = rope.get("factor") or factor
    return limit * factor


def _scalings(text: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The RoPE settings: one for all layers, or one for each type of layer."""
    rope: Mapping[str, Any] = text.get("rope_parameters") or {}
    nested = [cast("Mapping[str, Any]", value) for value in rope.values() if isinstance(value, dict)]
    yield from nested or [rope]


def _tokenizer_length(folder: Path) -> float | None:
    """`model_max_length` of the tokenizer's config. Tokenizers without a limit give 1e30."""
    try:
        content: object = json.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None  # the server's text half reads this file too, and reports its faults
    length = cast("dict[str, Any]", content).get("model_max_length") if isinstance(content, dict) else None
    return length if isinstance(length, int | float) and length > 0 and not isinstance(length, bool) else None
