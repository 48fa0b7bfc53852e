"""Runs of made-up answers, whose numbers are easy to follow."""

from collections.abc import Sequence

import numpy as np

from panacea.evaluation import FORMAT_VERSION, Evaluation
from panacea_train.evaluation import AnswerRecord, EvaluationRun, summarise
from panacea_train.pareto import simplex_grid

RESAMPLES = 100


def made_up_run(
    name: str = "mine",
    *,
    prompts: int = 6,
    samples: int = 2,
    temperatures: Sequence[float] = (0.7, 0.0),
    divisions: int = 2,
    steering: float = 1.0,
    seed: int = 0,
    dimensions: Sequence[str] = ("helpful", "concise"),
    resamples: int = RESAMPLES,
) -> EvaluationRun:
    """Each reward is `steering` times its weight, plus noise of the prompt and the sample that all points share."""
    reference_point = (-3.0,) * len(dimensions)
    grid = simplex_grid(len(dimensions), divisions)
    rng = np.random.default_rng(seed)
    records: list[AnswerRecord] = []
    for temperature in temperatures:
        noise = rng.normal(size=(prompts, samples, len(dimensions))) * 0.3
        records += [
            AnswerRecord(
                text=f"An answer at {preference}.",
                rewards=tuple((steering * np.asarray(preference) + noise[prompt, sample]).tolist()),
                words=4 + prompt,
                temperature=temperature,
                preference=preference,
                prompt_index=prompt,
                prompt=f"Question {prompt}?",
                sample=sample,
            )
            for preference in grid
            for prompt in range(prompts)
            for sample in range(samples)
        ]
    by_point = iter(records)
    sweeps = [
        summarise(
            dimensions,
            reference_point,
            temperature,
            grid,
            [[[next(by_point) for _ in range(samples)] for _ in range(prompts)] for _ in grid],
            resamples,
        )
        for temperature in temperatures
    ]
    evaluation = Evaluation(
        model="tiny",
        created="2026-01-31",
        dimensions=tuple(dimensions),
        reference_point=reference_point,
        prompts=prompts,
        sweeps=tuple(sweeps),
        format_version=FORMAT_VERSION,
    )
    return EvaluationRun(name, evaluation, tuple(records))
