"""How well an adapter steers: the measured front, in `evaluation.json` beside the adapter and at GET /v1/evaluation.

The structures below are the file's published schema; `load_evaluation` checks a file against it.
"""

from pathlib import Path

import msgspec

FORMAT_VERSION = 1

Interval = tuple[float, float]
"""The middle 95 % of what a number was when the prompts were drawn anew, with replacement (bootstrap)."""


class GridPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the model does at one preference."""

    preference: tuple[float, ...]
    rewards: tuple[float, ...]
    """Mean reward per dimension, over all prompts and samples."""
    standard_errors: tuple[float, ...]
    """Standard error of each mean, from the spread of the prompts' own means."""
    mean_words: float
    faithful: float | None
    """Share of all sentences that belong to the question's topic, or are fitting small talk. None: nobody told."""
    non_dominated: bool
    """No other point is at least as good on every dimension and better on one. Equal points do not dominate each
    other: read this beside the sweep's `distinct`."""


class Sweep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All points of the grid at one temperature. `panacea_train.pareto` has the measures' formulas."""

    temperature: float
    samples_per_prompt: int
    points: tuple[GridPoint, ...]
    spearman: dict[str, float]
    """Per dimension: rank correlation of its weight and its mean reward over the points."""
    spearman_intervals: dict[str, Interval]
    hypervolume: float
    """Volume of reward space that the points dominate above the reference point."""
    hypervolume_interval: Interval
    inner_product: float
    """Mean of <preference, rewards> over the points."""
    inner_product_interval: Interval
    sparsity: float
    """Mean squared gap along the front: over the points that are non-dominated, equal ones counted once."""
    sparsity_interval: Interval
    spacing: float
    """Standard deviation of the distances to the nearest neighbour, of the same points."""
    spacing_interval: Interval
    non_dominated: int
    distinct: int
    """Points whose mean rewards differ by a hundredth of the range of single answers' rewards. A model that ignores its
    preference has 1."""
    distinct_vertices_share: float | None
    """Share of prompts (and samples) that were answered in three, or as many as there are dimensions, different ways at
    the grid's vertices; all points use the same noise. None: not every vertex was asked."""


class ExampleAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was said at one preference."""

    preference: tuple[float, ...]
    text: str
    rewards: tuple[float, ...]


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One prompt and its answers across preferences, to be read by people."""

    prompt: str
    temperature: float
    answers: tuple[ExampleAnswer, ...]


class Evaluation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One evaluation of one adapter."""

    model: str
    created: str
    """Date, ISO 8601, UTC."""
    dimensions: tuple[str, ...]
    reference_point: tuple[float, ...]
    """Where the hypervolume begins."""
    prompts: int
    sweeps: tuple[Sweep, ...]
    examples: tuple[Example, ...] = ()
    notes: dict[str, str] = {}
    """How it was measured, in words, by keyword."""
    figures: dict[str, float] = {}
    """What else was measured, by name."""
    format_version: int = FORMAT_VERSION


def load_evaluation(path: Path) -> Evaluation:
    """The evaluation in `path`. Raises `msgspec.ValidationError` when it does not follow the schema."""
    evaluation = msgspec.json.decode(path.read_bytes(), type=Evaluation)
    if evaluation.format_version != FORMAT_VERSION:
        raise msgspec.ValidationError(f"format_version is {evaluation.format_version}, not {FORMAT_VERSION}")
    return evaluation


def save_evaluation(evaluation: Evaluation, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(evaluation), indent=1) + b"\n")
