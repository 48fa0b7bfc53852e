"""The schema of an adapter's evaluation: the measured front in `evaluation.json`, as `GET /v1/evaluation` serves it.

The classes are plain dataclasses, so that the engine's and the training's machines need no other package. The API reads
them with pydantic, for the OpenAPI document and for checking a file, and the training reads and writes them with
msgspec. A file may hold further fields for the server; the training refuses them, because it would drop them when it
writes the file again.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

FORMAT_VERSION: Literal[1] = 1

_PYDANTIC = {"use_attribute_docstrings": True, "extra": "allow", "allow_inf_nan": False}
"""How pydantic reads these classes: the text below a field is its description."""


class _IntervalSchema:
    """The JSON schema of an interval, read by pydantic."""

    def __get_pydantic_json_schema__(self, _core_schema: Any, _handler: Any) -> dict[str, Any]:
        return {
            "type": "array",
            "items": {"type": "number"},
            "minItems": 2,
            "maxItems": 2,
            "description": "Low and high: 95 % of the values lie between them when prompts are resampled (bootstrap).",
        }


Interval = Annotated[tuple[float, float], _IntervalSchema()]
"""Low and high: 95 % of the values lie between them when prompts are drawn anew, with replacement (bootstrap)."""


@dataclass(frozen=True)
class EvaluationPoint:
    """What the model does at one preference, on average over prompts and samples."""

    __pydantic_config__ = _PYDANTIC

    preference: tuple[float, ...]
    """The weights, with sum 1."""
    rewards: tuple[float, ...]
    """Mean reward per dimension, over all prompts and samples."""
    standard_errors: tuple[float, ...]
    """Standard error of each mean reward, from the spread of the prompts' own means."""
    mean_words: float
    """Mean length of the answers in words."""
    faithful: float | None
    """Share of sentences that belong to the question's topic or are fitting small talk; null if it was not judged."""
    non_dominated: bool
    """No other point is at least as good in every dimension and better in one. Equal points do not dominate each
    other: read this beside the sweep's `distinct`."""


@dataclass(frozen=True)
class EvaluationSweep:
    """All points of the grid at one temperature. `panacea_train.pareto` has the measures' formulas."""

    __pydantic_config__ = _PYDANTIC

    temperature: float
    """Sampling temperature; 0 is greedy."""
    samples_per_prompt: int
    """Answers to each prompt at each point."""
    points: tuple[EvaluationPoint, ...]
    """The grid."""
    spearman: dict[str, float]
    """By dimension: rank correlation between its weight and its mean reward over the points."""
    spearman_intervals: dict[str, Interval]
    """By dimension: the interval of its rank correlation."""
    hypervolume: float
    """Volume of reward space that the points dominate above the reference point."""
    hypervolume_interval: Interval
    inner_product: float
    """Mean over the points of <preference, rewards>: their weights times their rewards, summed."""
    inner_product_interval: Interval
    sparsity: float
    """Mean squared gap along the front: over the non-dominated points, equal ones counted once."""
    sparsity_interval: Interval
    spacing: float
    """Standard deviation of the distances to the nearest neighbour, of the same points."""
    spacing_interval: Interval
    non_dominated: int
    """Number of points that no other point dominates."""
    distinct: int
    """Points whose mean rewards differ from all others' by a hundredth of the range of single answers' rewards. A model
    that ignores its preference has 1."""
    distinct_vertices_share: float | None
    """Share of prompts (and samples) with a different answer at each vertex of the grid; all points use the same noise.
    Null if not every vertex was evaluated."""


@dataclass(frozen=True)
class EvaluationExampleAnswer:
    """The answer at one preference."""

    __pydantic_config__ = _PYDANTIC

    preference: tuple[float, ...]
    """The weights."""
    text: str
    """The answer."""
    rewards: tuple[float, ...]
    """Its reward in each dimension."""


@dataclass(frozen=True)
class EvaluationExample:
    """One prompt and its answers across preferences, for people to read."""

    __pydantic_config__ = _PYDANTIC

    prompt: str
    """The user's last message."""
    temperature: float
    """Sampling temperature."""
    answers: tuple[EvaluationExampleAnswer, ...]
    """One for each of some preferences."""


@dataclass(frozen=True)
class Evaluation:
    """An adapter's measured front. Numbers per dimension are in the order of `dimensions`."""

    __pydantic_config__ = _PYDANTIC

    model: str
    """The name of the measured model."""
    created: str
    """Date, ISO 8601, UTC."""
    dimensions: tuple[str, ...]
    """The adapter's dimensions."""
    reference_point: tuple[float, ...]
    """Where the hypervolume begins: a reward for each dimension."""
    prompts: int
    """Number of prompts."""
    sweeps: tuple[EvaluationSweep, ...]
    """One for each temperature."""
    examples: tuple[EvaluationExample, ...] = ()
    """Some answers to read."""
    notes: dict[str, str] = field(default_factory=dict[str, str])
    """How it was measured, in words, by keyword."""
    figures: dict[str, float] = field(default_factory=dict[str, float])
    """Further measurements by name."""
    format_version: Literal[1] = field(kw_only=True)
    """Version of this file's format."""
