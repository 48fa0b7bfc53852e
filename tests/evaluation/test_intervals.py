"""Bootstrap intervals: against scipy's where a measure is a mean, and in what they must do."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from panacea.evaluation import EvaluationSweep
from tests.evaluation.runs import made_up_run


def width(sweep: EvaluationSweep, measure: str) -> float:
    low, high = getattr(sweep, f"{measure}_interval")
    return float(high - low)


def test_the_interval_of_a_mean_is_that_of_scipy() -> None:
    run = made_up_run(prompts=80, temperatures=(0.7,), resamples=3000)
    sweep = run.evaluation.sweeps[0]
    by_prompt = np.mean(
        [
            [np.mean([np.dot(point.preference, answer.rewards) for answer in samples]) for samples in prompts]
            for point, prompts in zip(sweep.points, run.sweep_answers(sweep), strict=True)
        ],
        axis=0,
    )
    found = bootstrap((by_prompt,), np.mean, n_resamples=3000, method="percentile", rng=np.random.default_rng(9))
    spread = found.confidence_interval.high - found.confidence_interval.low
    assert sweep.inner_product_interval == pytest.approx(tuple(found.confidence_interval), abs=0.1 * spread)
    assert spread > 0.01


@pytest.mark.parametrize("measure", ["hypervolume", "inner_product"])
def test_sixteen_times_as_many_prompts_make_an_interval_about_a_quarter_as_wide(measure: str) -> None:
    few, many = (
        made_up_run(prompts=prompts, temperatures=(0.7,), resamples=400).evaluation.sweeps[0] for prompts in (25, 400)
    )
    assert 0.15 * width(few, measure) < width(many, measure) < 0.4 * width(few, measure)


def test_one_prompt_has_intervals_without_width() -> None:
    sweep = made_up_run(prompts=1, temperatures=(0.7,)).evaluation.sweeps[0]
    for measure in ("hypervolume", "inner_product", "sparsity", "spacing"):
        assert getattr(sweep, f"{measure}_interval") == (getattr(sweep, measure),) * 2
