"""Schema of an adapter's evaluation file, as `GET /v1/evaluation` serves it."""

from typing import Literal

from pydantic import ConfigDict

from panacea.api.fields import Documented


class _Open(Documented):
    # Files may say more than this.
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


class EvaluationPoint(_Open):
    """What one preference gave, on average over prompts and samples."""

    preference: list[float]
    """The weights, with sum 1."""
    rewards: list[float]
    """Mean reward per dimension."""
    standard_errors: list[float]
    """Of the mean rewards."""
    mean_words: float
    """How long the answers were."""
    faithful: float
    """Share of sentences that belong to the task that was asked for."""
    non_dominated: bool
    """No other point is at least as good in every dimension and better in one."""


class EvaluationSweep(_Open):
    """A grid over all preferences at one temperature."""

    temperature: float
    """Of the sampling; 0 is greedy."""
    samples_per_prompt: int
    """Answers to each prompt at each point."""
    points: list[EvaluationPoint]
    """The grid."""
    spearman: dict[str, float]
    """By dimension: rank correlation between its weight and its mean reward."""
    hypervolume: float
    """Volume between the reference point and the front."""
    non_dominated: int
    """How many points no other is better than."""
    distinct: int
    """Points whose rewards differ from all others'."""
    distinct_vertices_share: float
    """Share of prompts that got a different answer at each vertex."""


class Evaluation(_Open):
    """An adapter's measured front. Numbers per dimension are in the order of `dimensions`."""

    format_version: Literal[1]
    """Of this file."""
    model: str
    """What was measured."""
    created: str
    """The day."""
    dimensions: list[str]
    """The adapter's."""
    reference_point: list[float]
    """Where the hypervolume begins, a reward for each dimension."""
    prompts: int
    """How many were asked."""
    sweeps: list[EvaluationSweep]
    """One for each temperature."""
