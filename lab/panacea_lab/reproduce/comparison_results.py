"""The results of the comparison, and their measures."""

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from panacea.evaluation import EvaluationSweep, Interval
from panacea.preference import Preference
from panacea_lab.demo.examination import NAMES, REFERENCE_POINT
from panacea_lab.reproduce.comparison_settings import ReproduceSettings
from panacea_lab.reproduce.rate_search import Rates
from panacea_train.evaluation import Answered, summarise
from panacea_train.pareto import hypervolume, inner_product

JudgedAnswers = list[list[list[list[Answered]]]]
"""By temperature, preference, question and sample; `plan` below is the number of a temperature."""


class TrainedMethod(msgspec.Struct, frozen=True):
    """One method from one seed."""

    seed: int
    seconds: float
    """Of training and asking."""
    answers: JudgedAnswers


class MethodResults(msgspec.Struct, frozen=True):
    """One method from all seeds."""

    name: str
    title: str
    description: str
    adapters: int
    """That shared its steps."""
    preferences: list[Preference]
    tuning: list[tuple[Rates, float]]
    """What was tried, and its hypervolume on the tuning questions."""
    rates: Rates
    """What was chosen."""
    has_factor: bool
    trained: list[TrainedMethod]

    def rewards(self, plan: int) -> NDArray[np.float64]:
        """Mean rewards (seeds, preferences, questions, dimensions) at one of the temperatures."""
        return np.asarray([_rewards(trained.answers, plan) for trained in self.trained])


class ComparisonResults(msgspec.Struct, frozen=True):
    """The whole comparison."""

    settings: ReproduceSettings
    questions: int
    temperatures: list[float]
    base: JudgedAnswers
    methods: list[MethodResults]


@dataclass(frozen=True)
class Estimate:
    """A mean over the seeds."""

    value: float
    by_seed: tuple[float, ...]
    interval: Interval
    """The middle 95 % when seeds and questions are drawn anew, with replacement."""


@dataclass(frozen=True)
class MethodComparison:
    """The measures of all methods at one temperature."""

    temperature: float
    base_hypervolume: float
    hypervolumes: dict[str, Estimate]
    """By method, over the method's own points."""
    inner_products: dict[str, Estimate]
    """By method, over the preferences that all methods have."""
    hypervolume_leads: dict[str, Estimate]
    """By other method: Panacea's value minus the method's, on the same questions."""
    inner_product_leads: dict[str, Estimate]
    sweeps: dict[str, list[EvaluationSweep]]
    """By method and seed."""


def compare(results: ComparisonResults, plan: int) -> MethodComparison:
    """The methods at temperature `results.temperatures[plan]`.

    Intervals come from a bootstrap. Each resample draws the questions again, the same ones for all methods, and each
    method's seeds. Three seeds say little about the spread of seeds: read the values of single seeds beside it.
    """
    temperature = results.temperatures[plan]
    rewards = {method.name: method.rewards(plan) for method in results.methods}
    common = set.intersection(*({tuple(p) for p in method.preferences} for method in results.methods))
    rows = {
        method.name: [i for i, p in enumerate(method.preferences) if tuple(p) in common] for method in results.methods
    }
    preferences = {method.name: [tuple(p) for p in method.preferences] for method in results.methods}
    rng = np.random.default_rng(0)
    questions = results.questions
    volumes: dict[str, list[float]] = {name: [] for name in rewards}
    products: dict[str, list[float]] = {name: [] for name in rewards}
    for _ in range(results.settings.resamples):
        asked = rng.integers(questions, size=questions)
        for name, own in rewards.items():
            seeds = rng.integers(len(own), size=len(own))
            means = own[seeds][:, :, asked].mean(2)
            volumes[name].append(_mean_volume(means))
            products[name].append(_mean_product(means, preferences[name], rows[name]))
    whole = {name: own.mean(2) for name, own in rewards.items()}
    seed_volumes = {name: tuple(_mean_volume(means[None]) for means in own) for name, own in whole.items()}
    seed_products = {
        name: tuple(_mean_product(means[None], preferences[name], rows[name]) for means in own)
        for name, own in whole.items()
    }
    return MethodComparison(
        temperature=temperature,
        base_hypervolume=hypervolume(_rewards(results.base, plan).mean(1).tolist(), REFERENCE_POINT),
        hypervolumes={name: _estimate(values, volumes[name]) for name, values in seed_volumes.items()},
        inner_products={name: _estimate(values, products[name]) for name, values in seed_products.items()},
        hypervolume_leads=_leads(seed_volumes, volumes),
        inner_product_leads=_leads(seed_products, products),
        sweeps={
            method.name: [
                summarise(
                    NAMES,
                    REFERENCE_POINT,
                    temperature,
                    [tuple(p) for p in method.preferences],
                    trained.answers[plan],
                    resamples=results.settings.resamples,
                )
                for trained in method.trained
            ]
            for method in results.methods
        },
    )


def _rewards(answers: JudgedAnswers, plan: int) -> NDArray[np.float64]:
    """(preferences, questions, dimensions), means over samples."""
    values = [[[a.rewards for a in samples] for samples in asked] for asked in answers[plan]]
    return np.asarray(np.asarray(values, dtype=float).mean(2))


def _mean_volume(means: NDArray[np.float64]) -> float:
    """(seeds, preferences, dimensions)"""
    return float(np.mean([hypervolume(points.tolist(), REFERENCE_POINT) for points in means]))


def _mean_product(means: NDArray[np.float64], preferences: list[tuple[float, ...]], rows: list[int]) -> float:
    weights = [preferences[i] for i in rows]
    return float(np.mean([inner_product(weights, points[rows].tolist()) for points in means]))


def _estimate(by_seed: tuple[float, ...], drawn: list[float]) -> Estimate:
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    return Estimate(float(np.mean(by_seed)), by_seed, (low, high))


def _leads(by_seed: dict[str, tuple[float, ...]], drawn: dict[str, list[float]]) -> dict[str, Estimate]:
    """The first method's values minus those of each other method."""
    first, *others = by_seed
    return {
        name: _estimate(
            tuple(a - b for a, b in zip(by_seed[first], by_seed[name], strict=True)),
            [a - b for a, b in zip(drawn[first], drawn[name], strict=True)],
        )
        for name in others
    }
