"""The golden files: outputs computed in float64, by code that shares nothing with this project."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden"
BASE = GOLDEN / "base"
ADAPTER = GOLDEN / "adapter"


@dataclass(frozen=True)
class Golden:
    """What one prompt gives under one preference (None: the base)."""

    preference: tuple[float, ...] | None
    prompt_ids: list[int]
    next_token_logits: list[float]
    greedy_ids: list[int]


@cache
def golden(section: str) -> list[Golden]:
    """All entries of a section of expected.json: "panacea", "soup" or "base"."""
    content: list[dict[str, Any]] = json.loads((GOLDEN / "expected.json").read_text("utf-8"))[section]
    if section == "base":
        return [_entry(None, output) for output in content]
    return [_entry(_normalise(entry["preference"]), output) for entry in content for output in entry["outputs"]]


def _normalise(given: list[float] | dict[str, float]) -> tuple[float, ...]:
    weights = list(given.values()) if isinstance(given, dict) else given
    return tuple(weight / sum(weights) for weight in weights)


def _entry(preference: tuple[float, ...] | None, output: dict[str, Any]) -> Golden:
    return Golden(preference, output["prompt_ids"], output["next_token_logits"], output["greedy_ids"])
