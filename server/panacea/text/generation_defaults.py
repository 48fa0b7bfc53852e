"""Defaults of sampling fields, read from a model's `generation_config.json`."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from panacea.engine.sampling_params import REPETITION_PENALTIES
from panacea.errors import CheckpointError

logger = logging.getLogger(__name__)

_NEUTRAL = {"typical_p": 1.0}
"""Fields that other programs apply and this server does not support, with the value that has no effect."""


@dataclass(frozen=True)
class GenerationDefaults:
    """Values of the sampling fields that a request leaves out. They are OpenAI's unless the model sets others."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all tokens."""
    min_p: float = 0.0
    repetition_penalty: float = 1.0


def generation_defaults(config: Mapping[str, Any]) -> GenerationDefaults:
    """The defaults in a parsed `generation_config.json`. An explicit `do_sample: false` means greedy.

    Raises `CheckpointError` for values outside the ranges that a request may use.
    """
    defaults = GenerationDefaults(
        temperature=0.0 if config.get("do_sample") is False else _number(config, "temperature", 1.0, 0.0, 2.0),
        top_p=_number(config, "top_p", 1.0, 1e-6, 1.0),
        top_k=int(_number(config, "top_k", 0, 0, 2**31 - 1)),
        min_p=_number(config, "min_p", 0.0, 0.0, 1.0),
        repetition_penalty=_number(config, "repetition_penalty", 1.0, *REPETITION_PENALTIES),
    )
    for name, neutral in _NEUTRAL.items():
        if config.get(name) not in (None, neutral):
            logger.warning("generation_config.json sets %s, which this server does not apply", name)
    return defaults


def _number(config: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = config.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise CheckpointError(f"generation_config.json: {name} must be a number between {low:g} and {high:g}")
    return value
