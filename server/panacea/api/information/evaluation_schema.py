"""Schema of an adapter's evaluation file, as `GET /v1/evaluation` serves it."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from panacea.api.fields import Documented

Interval = Annotated[
    list[float],
    Field(
        min_length=2,
        max_length=2,
        description="Low and high: 95 % of the values lie between when prompts are drawn anew (bootstrap).",
    ),
]


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
    faithful: float | None
    """Share of sentences that belong to the task that was asked for; null where nobody told."""
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
    spearman_intervals: dict[str, Interval]
    """By dimension: where 95 % of its correlations lie when prompts are drawn anew."""
    hypervolume: float
    """Volume between the reference point and the front."""
    hypervolume_interval: Interval
    inner_product: float
    """Mean over the points of their weights times their rewards, summed."""
    inner_product_interval: Interval
    sparsity: float
    """Mean squared gap along the front."""
    sparsity_interval: Interval
    spacing: float
    """Standard deviation of the points' distances to their nearest neighbours on the front."""
    spacing_interval: Interval
    non_dominated: int
    """How many points no other is better than."""
    distinct: int
    """Points whose rewards differ from all others'."""
    distinct_vertices_share: float | None
    """Share of prompts that got a different answer at each vertex; null where not every vertex was asked."""


class EvaluationExampleAnswer(_Open):
    """What was said at one preference."""

    preference: list[float]
    """The weights."""
    text: str
    """The answer."""
    rewards: list[float]
    """What it was worth in each dimension."""


class EvaluationExample(_Open):
    """One prompt and its answers across preferences."""

    prompt: str
    """What was asked."""
    temperature: float
    """Of the sampling."""
    answers: list[EvaluationExampleAnswer]
    """One for each of some preferences."""


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
    examples: list[EvaluationExample] = Field(default=[])
    """Some answers, to be read."""
