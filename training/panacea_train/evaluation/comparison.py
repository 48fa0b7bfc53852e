"""A comparison of several models: one reference point for all, and intervals of their differences."""

import csv
import dataclasses
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import msgspec
import numpy as np

from panacea.errors import ConfigError
from panacea.evaluation import Evaluation, EvaluationSweep, Interval
from panacea_train.evaluation.evaluation_run import ANSWERS_FILE, REPORT_FILE, EvaluationRun
from panacea_train.evaluation.sweep_summary import (
    RESAMPLED_DIRECTIONS,
    RESAMPLES,
    drawn_prompts,
    interval,
    measures_of,
    prompt_rewards,
    rounded,
    summarise,
)
from panacea_train.output_folder import Contents

COMPARISON_FILE = "comparison.json"
TABLE_FILE = "comparison.csv"
COMPARISON = Contents("a comparison", (COMPARISON_FILE,), (COMPARISON_FILE, TABLE_FILE, REPORT_FILE))
MEASURES = ("hypervolume", "inner_product", "sparsity", "spacing")


class Difference(msgspec.Struct, frozen=True):
    """The measure of one model, `of`, minus that of another, `minus`."""

    temperature: float
    measure: str
    of: str
    minus: str
    difference: float
    interval: Interval
    """If it contains 0, the difference may be chance."""
    paired: bool
    """Both models had the same prompts, and both were resampled with the same ones. Else each has its own."""


class Comparison(msgspec.Struct, frozen=True):
    """Evaluations with a common reference point."""

    dimensions: tuple[str, ...]
    reference_point: tuple[float, ...]
    evaluations: dict[str, Evaluation]
    """By the models' names."""
    differences: tuple[Difference, ...]
    """Of all pairs, at every temperature that both have. Inner products are compared only if both models were evaluated
    at the same preferences."""


def with_common_reference(
    runs: Sequence[EvaluationRun], reference_point: Sequence[float] | None = None, resamples: int = RESAMPLES
) -> list[EvaluationRun]:
    """The runs with all measures computed again from their answers above one point.

    By default that point is the worst reward of any single answer on each dimension.

    Raises `ConfigError` for runs that cannot be compared.
    """
    _check(runs)
    corner = tuple(reference_point or np.min([_worst(run) for run in runs], axis=0).tolist())
    return [
        msgspec.structs.replace(
            run,
            evaluation=dataclasses.replace(
                run.evaluation,
                reference_point=corner,
                sweeps=tuple(_again(run, sweep, corner, resamples) for sweep in run.evaluation.sweeps),
            ),
        )
        for run in runs
    ]


def compare_runs(runs: Sequence[EvaluationRun], resamples: int = RESAMPLES) -> Comparison:
    """The comparison of `runs`, which come from `with_common_reference`."""
    return Comparison(
        runs[0].evaluation.dimensions,
        runs[0].evaluation.reference_point,
        {run.name: run.evaluation for run in runs},
        tuple(
            difference
            for first, second in combinations(runs, 2)
            for sweep in first.evaluation.sweeps
            for other in second.evaluation.sweeps
            if sweep.temperature == other.temperature
            for difference in _differences(first, sweep, second, other, resamples)
        ),
    )


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Writes comparison.json and comparison.csv into `folder`."""
    content = msgspec.json.format(msgspec.json.encode(comparison), indent=1)
    (folder / COMPARISON_FILE).write_bytes(content + b"\n")
    with (folder / TABLE_FILE).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(_rows(comparison))


def _check(runs: Sequence[EvaluationRun]) -> None:
    if len(runs) < 2:
        raise ConfigError("a comparison needs at least two evaluations, each as NAME=DIR")
    first = runs[0]
    for index, run in enumerate(runs):
        if run.name in [other.name for other in runs[:index]]:
            raise ConfigError(f"there are two evaluations called {run.name}")
        if not run.answers:
            raise ConfigError(f"{run.name} has no {ANSWERS_FILE}, which a common reference point and intervals need")
        if run.evaluation.dimensions != first.evaluation.dimensions:
            raise ConfigError(
                f"{run.name} and {first.name} cannot be compared: their dimensions are "
                f"{', '.join(run.evaluation.dimensions)} and {', '.join(first.evaluation.dimensions)}"
            )
    common = set.intersection(*({sweep.temperature for sweep in run.evaluation.sweeps} for run in runs))
    if not common:
        raise ConfigError("the evaluations have no temperature in common: evaluate them again at one")


def _worst(run: EvaluationRun) -> list[float]:
    worst: list[float] = np.min([record.rewards for record in run.answers or ()], axis=0).tolist()
    return worst


def _again(
    run: EvaluationRun, sweep: EvaluationSweep, reference_point: tuple[float, ...], resamples: int
) -> EvaluationSweep:
    preferences = [point.preference for point in sweep.points]
    dimensions = run.evaluation.dimensions
    return summarise(dimensions, reference_point, sweep.temperature, preferences, run.sweep_answers(sweep), resamples)


def _differences(
    first: EvaluationRun, sweep: EvaluationSweep, second: EvaluationRun, other: EvaluationSweep, resamples: int
) -> Iterator[Difference]:
    sides = []
    paired = first.prompts == second.prompts
    for seed, (run, own) in enumerate(((first, sweep), (second, other))):
        rewards = prompt_rewards(run.sweep_answers(own))
        drawn = drawn_prompts(rewards.shape[1], resamples, seed=0 if paired else seed)
        points = [point.preference for point in own.points]
        corner = run.evaluation.reference_point
        values = {name: measure(rewards.mean(1)) for name, measure in measures_of(points, corner).items()}
        resampled = measures_of(points, corner, RESAMPLED_DIRECTIONS)
        sides.append((values, resampled, [rewards[:, chosen].mean(1) for chosen in drawn]))
    (values, measures, draws), (other_values, other_measures, other_draws) = sides
    same_points = {point.preference for point in sweep.points} == {point.preference for point in other.points}
    for name in MEASURES:
        if name == "inner_product" and not same_points:
            continue
        one, two = measures[name], other_measures[name]
        yield Difference(
            temperature=sweep.temperature,
            measure=name,
            of=first.name,
            minus=second.name,
            difference=rounded(values[name] - other_values[name]),
            interval=interval([one(own) - two(others) for own, others in zip(draws, other_draws, strict=True)]),
            paired=paired,
        )


def _rows(comparison: Comparison) -> Iterator[list[object]]:
    names = comparison.dimensions
    measures = [(name, f"{name}_low", f"{name}_high") for name in (*MEASURES, *(f"spearman_{n}" for n in names))]
    columns = [column for triple in measures for column in triple]
    yield ["name", "temperature", "points", *columns, "non_dominated", "distinct"]
    for run, evaluation in comparison.evaluations.items():
        for sweep in evaluation.sweeps:
            values = [[getattr(sweep, name), *getattr(sweep, f"{name}_interval")] for name in MEASURES]
            values += [[sweep.spearman[name], *sweep.spearman_intervals[name]] for name in names]
            row = [number for triple in values for number in triple]
            yield [run, sweep.temperature, len(sweep.points), *row, sweep.non_dominated, sweep.distinct]
