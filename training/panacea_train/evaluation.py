"""How well an adapter steers: the measured front, in `evaluation.json` beside the adapter and at GET /v1/evaluation.

The structures below are the file's published schema; `load_evaluation` checks a file against it.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from panacea_train.pareto import Point, distinct, hypervolume, non_dominated, spearman

FORMAT_VERSION = 1


class GridPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the model does at one preference."""

    preference: tuple[float, ...]
    rewards: tuple[float, ...]
    """Mean reward per dimension, over all prompts and samples."""
    standard_errors: tuple[float, ...]
    """Standard error of each mean, from the spread of the prompts' own means."""
    mean_words: float
    faithful: float
    """Share of all sentences that belong to the question's topic, or are small talk that suits it."""
    non_dominated: bool
    """No other point is at least as good on every dimension and better on one. Equal points do not dominate each
    other: read this beside the sweep's `distinct`."""


class Sweep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All points of the grid at one temperature."""

    temperature: float
    samples_per_prompt: int
    points: tuple[GridPoint, ...]
    spearman: dict[str, float]
    """Per dimension: rank correlation of its weight and its mean reward over the points."""
    hypervolume: float
    """Volume of reward space that the points dominate above the reference point."""
    non_dominated: int
    distinct: int
    """Points whose mean rewards differ in the first two decimals. A model that ignores its preference has 1."""
    distinct_vertices_share: float
    """Share of prompts (and samples) that were answered in three, or as many as there are dimensions, different ways at
    the grid's vertices; all points use the same noise."""


class Evaluation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One evaluation of one adapter."""

    model: str
    created: str
    """Date, ISO 8601, UTC."""
    dimensions: tuple[str, ...]
    reference_point: tuple[float, ...]
    """Worst corner of reward space, where the hypervolume begins."""
    prompts: int
    sweeps: tuple[Sweep, ...]
    notes: dict[str, str] = {}
    """How it was measured, in words, by keyword."""
    figures: dict[str, float] = {}
    """What else was measured, by name."""
    format_version: int = FORMAT_VERSION


class Answered(msgspec.Struct, frozen=True):
    """One answer of a sweep and what it was worth."""

    text: str
    rewards: Point
    sentences: int
    faithful_sentences: int
    words: int


def summarise(
    dimensions: Sequence[str],
    reference_point: Point,
    temperature: float,
    preferences: Sequence[tuple[float, ...]],
    answers: Sequence[Sequence[Sequence[Answered]]],
) -> Sweep:
    """The sweep that `answers[point][prompt][sample]` amount to, for the points `preferences`."""
    # (points, prompts, samples, dimensions)
    rewards = np.asarray([[[a.rewards for a in samples] for samples in prompts] for prompts in answers])
    means = rewards.mean((1, 2))
    errors = rewards.mean(2).std(1, ddof=1) / np.sqrt(rewards.shape[1]) if rewards.shape[1] > 1 else 0 * means
    front = non_dominated(means.tolist())
    points = tuple(
        _grid_point(preference, mean, error, answered, on_front)
        for preference, mean, error, answered, on_front in zip(
            preferences, means.tolist(), errors.tolist(), answers, front, strict=True
        )
    )
    return Sweep(
        temperature=temperature,
        samples_per_prompt=rewards.shape[2],
        points=points,
        spearman={
            name: round(spearman([p.preference[i] for p in points], means[:, i].tolist()), 4)
            for i, name in enumerate(dimensions)
        },
        hypervolume=round(hypervolume(means.tolist(), reference_point), 4),
        non_dominated=sum(front),
        distinct=distinct(means.tolist()),
        distinct_vertices_share=round(_distinct_vertices(preferences, answers), 4),
    )


def load_evaluation(path: Path) -> Evaluation:
    """The evaluation in `path`. Raises `msgspec.ValidationError` when it does not follow the schema."""
    return msgspec.json.decode(path.read_bytes(), type=Evaluation)


def save_evaluation(evaluation: Evaluation, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(evaluation), indent=1) + b"\n")


def _grid_point(
    preference: tuple[float, ...],
    mean: Sequence[float],
    error: Sequence[float],
    prompts: Sequence[Sequence[Answered]],
    on_front: bool,
) -> GridPoint:
    flat = [answer for samples in prompts for answer in samples]
    return GridPoint(
        preference=preference,
        rewards=tuple(round(value, 4) for value in mean),
        standard_errors=tuple(round(value, 4) for value in error),
        mean_words=round(sum(answer.words for answer in flat) / len(flat), 2),
        faithful=round(sum(a.faithful_sentences for a in flat) / sum(a.sentences for a in flat), 4),
        non_dominated=on_front,
    )


def _distinct_vertices(
    preferences: Sequence[tuple[float, ...]], answers: Sequence[Sequence[Sequence[Answered]]]
) -> float:
    vertices = [i for i, preference in enumerate(preferences) if max(preference) == 1]
    groups = [
        {answers[vertex][prompt][sample].text for vertex in vertices}
        for prompt in range(len(answers[0]))
        for sample in range(len(answers[0][0]))
    ]
    return sum(len(group) == len(vertices) for group in groups) / len(groups)
