"""Several evaluations beside each other: one reference point, and differences with intervals."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from scipy.stats import bootstrap

from panacea.errors import ConfigError
from panacea_train.evaluation import EvaluationRun
from panacea_train.evaluation.comparison import (
    Difference,
    compare_runs,
    with_common_reference,
    write_comparison,
)
from panacea_train.pareto import hypervolume
from tests.evaluation.runs import RESAMPLES, made_up_run


def differences(runs: list[EvaluationRun], resamples: int = RESAMPLES) -> dict[tuple[float, str], Difference]:
    found = compare_runs(with_common_reference(runs, resamples=resamples), resamples).differences
    return {(difference.temperature, difference.measure): difference for difference in found}


def test_hypervolumes_begin_at_the_worst_answer_of_all() -> None:
    runs = [made_up_run("steers", seed=1), made_up_run("idle", steering=0.2, seed=2)]
    worst = np.min([record.rewards for run in runs for record in run.answers or ()], axis=0)
    for run in with_common_reference(runs, resamples=10):
        assert run.evaluation.reference_point == tuple(worst)
        for sweep in run.evaluation.sweeps:
            means = [point.rewards for point in sweep.points]
            # The file's means are rounded to four decimals.
            assert sweep.hypervolume == pytest.approx(hypervolume(means, worst.tolist()), abs=1e-3)


def test_a_reference_point_can_be_given() -> None:
    first, _ = with_common_reference([made_up_run("a"), made_up_run("b", seed=1)], (-1.0, -2.0), resamples=10)
    assert first.evaluation.reference_point == (-1.0, -2.0)


def test_runs_without_any_answer_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"b has no answers\.jsonl"):
        with_common_reference([made_up_run("a"), msgspec.structs.replace(made_up_run("b"), answers=())])


def test_the_same_model_twice_differs_by_nothing() -> None:
    found = differences([made_up_run("a"), made_up_run("b")])
    assert len(found) == 2 * 4
    for difference in found.values():
        assert (difference.of, difference.minus) == ("a", "b")
        assert difference.difference == 0
        assert difference.interval == (0.0, 0.0)
        assert difference.paired


def test_what_steers_more_is_ahead_by_the_difference_of_the_files() -> None:
    runs = with_common_reference([made_up_run("steers"), made_up_run("idle", steering=0.3)], resamples=RESAMPLES)
    for difference in compare_runs(runs, RESAMPLES).differences:
        steers, idle = (
            next(s for s in run.evaluation.sweeps if s.temperature == difference.temperature) for run in runs
        )
        of_files = getattr(steers, difference.measure) - getattr(idle, difference.measure)
        assert difference.difference == pytest.approx(of_files, abs=2e-4)
        if difference.measure in ("hypervolume", "inner_product"):
            assert 0 < difference.interval[0] <= difference.difference <= difference.interval[1]


def test_paired_differences_are_those_of_the_bootstrap_of_scipy() -> None:
    """The inner product is a mean over prompts, so a bootstrap of the prompts' own differences must agree."""
    runs = [
        made_up_run("a", prompts=60, temperatures=(0.7,), seed=1),
        made_up_run("b", prompts=60, temperatures=(0.7,), seed=2, steering=0.9),
    ]
    found = next(d for d in compare_runs(runs, 2000).differences if d.measure == "inner_product")
    own = []
    for run in runs:
        sweep = run.evaluation.sweeps[0]
        products = [
            [np.mean([np.dot(point.preference, answer.rewards) for answer in samples]) for samples in prompts]
            for point, prompts in zip(sweep.points, run.sweep_answers(sweep), strict=True)
        ]
        own.append(np.mean(products, axis=0))
    expected = bootstrap(
        (own[0] - own[1],), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(1)
    )
    assert found.difference == pytest.approx(np.mean(own[0] - own[1]), abs=1e-4)
    spread = expected.confidence_interval.high - expected.confidence_interval.low
    assert found.interval == pytest.approx(tuple(expected.confidence_interval), abs=0.1 * spread)


def test_other_prompts_are_resampled_on_their_own() -> None:
    def widths(runs: list[EvaluationRun]) -> float:
        low, high = differences(runs)[0.7, "inner_product"].interval
        return high - low

    # Both have the same noise on each prompt: paired it cancels out, and alone it cannot.
    alike = [made_up_run("a", prompts=30), made_up_run("b", prompts=30, steering=0.8)]
    assert alike[1].answers is not None
    renamed = tuple(msgspec.structs.replace(record, prompt=f"Another {record.prompt}") for record in alike[1].answers)
    others = [alike[0], msgspec.structs.replace(alike[1], answers=renamed)]
    assert not differences(others)[0.7, "inner_product"].paired
    assert widths(alike) < 0.1 * widths(others)
    fewer = [made_up_run("a"), made_up_run("b", prompts=9)]
    assert not differences(fewer)[0.7, "hypervolume"].paired


def test_inner_products_of_other_preferences_are_not_compared() -> None:
    found = differences([made_up_run("a"), made_up_run("b", divisions=3)])
    assert {measure for _, measure in found} == {"hypervolume", "sparsity", "spacing"}


def test_only_common_temperatures_are_compared() -> None:
    found = differences([made_up_run("a"), made_up_run("b", temperatures=(0.0, 1.2))])
    assert {temperature for temperature, _ in found} == {0.0}


def test_what_is_written_holds_all_numbers(tmp_path: Path) -> None:
    runs = with_common_reference([made_up_run("a"), made_up_run("b", seed=1), made_up_run("c", seed=2)], resamples=10)
    comparison = compare_runs(runs, 10)
    write_comparison(comparison, tmp_path)
    content = json.loads((tmp_path / "comparison.json").read_text("utf-8"))
    assert content["reference_point"] == list(comparison.reference_point)
    assert list(content["evaluations"]) == ["a", "b", "c"]
    pairs = {(difference["of"], difference["minus"]) for difference in content["differences"]}
    assert pairs == {("a", "b"), ("a", "c"), ("b", "c")}
    rows = list(csv.DictReader((tmp_path / "comparison.csv").read_text("utf-8").splitlines()))
    assert [(row["name"], float(row["temperature"])) for row in rows] == [(n, t) for n in "abc" for t in (0.7, 0.0)]
    second = runs[1].evaluation.sweeps[0]
    assert float(rows[2]["hypervolume_low"]) == second.hypervolume_interval[0]
    assert float(rows[2]["spearman_concise"]) == second.spearman["concise"]
    assert int(rows[2]["distinct"]) == second.distinct


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (list, "needs at least two evaluations"),
        (lambda: [made_up_run("mine")], "two evaluations called mine"),
        (lambda: [made_up_run("b", dimensions=("kind", "short"))], "b and mine cannot be compared.*kind, short"),
        (lambda: [made_up_run("b", temperatures=(1.1,))], "no temperature in common"),
        (lambda: [msgspec.structs.replace(made_up_run("b"), answers=None)], r"b has no answers\.jsonl"),
    ],
)
def test_what_cannot_be_compared_is_refused(others: Callable[[], list[EvaluationRun]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_common_reference([made_up_run("mine"), *others()])
