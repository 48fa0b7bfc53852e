"""Schema of an adapter's evaluation file, as `GET /v1/evaluation` serves it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Open(BaseModel):
    # Files may say more than this.
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


class EvaluationPoint(_Open):
    """What one preference gave, on average over prompts and samples."""

    preference: list[float]
    rewards: list[float]
    """Mean reward per dimension."""
    standard_errors: list[float]
    mean_words: float
    faithful: float
    """Share of sentences that belong to the task that was asked for."""
    non_dominated: bool
    """No other point is at least as good in every dimension and better in one."""


class EvaluationSweep(_Open):
    """A grid over all preferences at one temperature."""

    temperature: float
    samples_per_prompt: int
    points: list[EvaluationPoint]
    spearman: dict[str, float]
    """By dimension: rank correlation between its weight and its mean reward."""
    hypervolume: float
    """Volume between the reference point and the front."""
    non_dominated: int
    distinct: int
    """Points whose rewards differ from all others'."""
    distinct_vertices_share: float
    """Share of prompts that got a different answer at each vertex."""


class Evaluation(_Open):
    """An adapter's measured front. Numbers per dimension are in the order of `dimensions`."""

    format_version: Literal[1]
    model: str
    created: str
    dimensions: list[str]
    reference_point: list[float]
    prompts: int
    sweeps: list[EvaluationSweep]
