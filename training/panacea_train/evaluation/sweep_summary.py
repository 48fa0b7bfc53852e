"""The measures of a sweep's answers, with intervals that say how much of each measure is chance."""

import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from panacea.evaluation import EvaluationPoint, EvaluationSweep, Interval
from panacea_train.pareto import (
    DIRECTIONS,
    Point,
    distinct,
    hypervolume,
    inner_product,
    non_dominated,
    spacing,
    sparsity,
    spearman,
)

RESAMPLES = 1000
CONFIDENCE = 0.95
DISTINCT_SHARE = 0.01
"""Points whose mean rewards differ by less than this share of the single answers' range count as one."""
RESAMPLED_DIRECTIONS = 1 << 14
"""Directions of a resample's hypervolume if it is not exact: 4 ms, off by 1 % or less, which is small beside chance."""

Means = NDArray[np.float64]
"""Mean rewards, (points, dimensions)."""


class Answered(msgspec.Struct, frozen=True):
    """One answer of a sweep with its rewards."""

    text: str
    rewards: tuple[float, ...]
    words: int
    sentences: int = 0
    """Sentences that were judged faithful or not."""
    faithful_sentences: int = 0


SweepAnswers = Sequence[Sequence[Sequence[Answered]]]
"""By point, prompt and sample."""


def summarise(
    dimensions: Sequence[str],
    reference_point: Point,
    temperature: float,
    preferences: Sequence[tuple[float, ...]],
    answers: SweepAnswers,
    resamples: int = RESAMPLES,
) -> EvaluationSweep:
    """The sweep of `answers[point][prompt][sample]` at the points `preferences`.

    Intervals come from the percentile bootstrap. Prompts are drawn with replacement, the same ones for all points, and
    every measure is computed again, `resamples` times from one seed. With one prompt the intervals have no width.
    """
    rewards = prompt_rewards(answers)
    means: Means = rewards.mean(1)
    prompts = rewards.shape[1]
    errors = rewards.std(1, ddof=1) / np.sqrt(prompts) if prompts > 1 else 0 * means
    is_best = non_dominated(means.tolist())
    points = tuple(
        _grid_point(preference, mean, error, answered, best)
        for preference, mean, error, answered, best in zip(
            preferences, means.tolist(), errors.tolist(), answers, is_best, strict=True
        )
    )
    measures = measures_of(preferences, reference_point)
    weights = np.asarray(preferences, dtype=float)
    ranks = {name: _rank(weights[:, i].tolist(), i) for i, name in enumerate(dimensions)}
    drawn = [rewards[:, chosen].mean(1) for chosen in drawn_prompts(prompts, resamples)]
    values = {name: rounded(measure(means)) for name, measure in measures.items()}
    resampled = measures_of(preferences, reference_point, RESAMPLED_DIRECTIONS)
    intervals = {name: interval([measure(means) for means in drawn]) for name, measure in resampled.items()}
    return EvaluationSweep(
        temperature=temperature,
        samples_per_prompt=len(answers[0][0]),
        points=points,
        spearman={name: round(rank(means), 4) for name, rank in ranks.items()},
        spearman_intervals={name: interval([rank(means) for means in drawn]) for name, rank in ranks.items()},
        hypervolume=values["hypervolume"],
        hypervolume_interval=intervals["hypervolume"],
        inner_product=values["inner_product"],
        inner_product_interval=intervals["inner_product"],
        sparsity=values["sparsity"],
        sparsity_interval=intervals["sparsity"],
        spacing=values["spacing"],
        spacing_interval=intervals["spacing"],
        non_dominated=sum(is_best),
        distinct=distinct(means.tolist(), _steps(answers).tolist()),
        distinct_vertices_share=_distinct_vertices(preferences, answers),
    )


def prompt_rewards(answers: SweepAnswers) -> NDArray[np.float64]:
    """Mean rewards of each prompt, (points, prompts, dimensions). The samples of a prompt are not independent."""
    rewards = np.asarray([[[a.rewards for a in samples] for samples in prompts] for prompts in answers], np.float64)
    means: NDArray[np.float64] = rewards.mean(2)
    return means


def measures_of(
    preferences: Sequence[tuple[float, ...]], reference_point: Point, directions: int = DIRECTIONS
) -> dict[str, Callable[[Means], float]]:
    """The measures of a sweep at `preferences`, by name, as functions of its mean rewards; `directions` as there."""
    return {
        "hypervolume": lambda means: hypervolume(means.tolist(), reference_point, directions),
        "inner_product": lambda means: inner_product(preferences, means.tolist()),
        "sparsity": lambda means: sparsity(_front(means)),
        "spacing": lambda means: spacing(_front(means)),
    }


def drawn_prompts(prompts: int, resamples: int, seed: int = 0) -> NDArray[np.int64]:
    """Prompts drawn with replacement, (resamples, prompts): the same ones for equal arguments."""
    return np.random.default_rng(seed).integers(prompts, size=(resamples, prompts))


def interval(values: Sequence[float]) -> Interval:
    """The middle 95 % of a measure's values in the resamples."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, (tail, 1 - tail)).tolist()
    return rounded(low), rounded(high)


def rounded(value: float) -> float:
    """Rounded to four decimals, or to four digits if those are more precise: rewards may have any unit."""
    return round(value, max(4, 3 - math.floor(math.log10(abs(value))))) if value else 0.0


def _steps(answers: SweepAnswers) -> NDArray[np.float64]:
    """The smallest difference of mean rewards that counts, for each dimension: a hundredth of single answers' range."""
    every = np.asarray([a.rewards for prompts in answers for samples in prompts for a in samples], np.float64)
    steps: NDArray[np.float64] = DISTINCT_SHARE * np.ptp(every, axis=0)
    return steps


def _front(means: Means) -> list[list[float]]:
    """The non-dominated points, equal ones once."""
    front: list[list[float]] = np.unique(means[non_dominated(means.tolist())], axis=0).tolist()
    return front


def _rank(weights: Sequence[float], dimension: int) -> Callable[[Means], float]:
    return lambda means: spearman(weights, means[:, dimension].tolist())


def _grid_point(
    preference: tuple[float, ...],
    mean: Sequence[float],
    error: Sequence[float],
    prompts: Sequence[Sequence[Answered]],
    is_best: bool,
) -> EvaluationPoint:
    flat = [answer for samples in prompts for answer in samples]
    told = sum(answer.sentences for answer in flat)
    return EvaluationPoint(
        preference=preference,
        rewards=tuple(rounded(value) for value in mean),
        standard_errors=tuple(rounded(value) for value in error),
        mean_words=round(sum(answer.words for answer in flat) / len(flat), 2),
        faithful=round(sum(answer.faithful_sentences for answer in flat) / told, 4) if told else None,
        non_dominated=is_best,
    )


def _distinct_vertices(preferences: Sequence[tuple[float, ...]], answers: SweepAnswers) -> float | None:
    vertices = [i for i, weights in enumerate(preferences) if max(weights) == sum(weights) == 1]
    if len({preferences[i] for i in vertices}) < len(preferences[0]):
        return None
    groups = [
        {answers[vertex][prompt][sample].text for vertex in vertices}
        for prompt in range(len(answers[0]))
        for sample in range(len(answers[0][0]))
    ]
    return round(sum(len(group) == len(vertices) for group in groups) / len(groups), 4)
