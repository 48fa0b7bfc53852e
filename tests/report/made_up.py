"""Evaluations that no model was needed for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from panacea.evaluation import FORMAT_VERSION, Evaluation, EvaluationExample, EvaluationExampleAnswer
from panacea_train.evaluation import Answered, summarise
from panacea_train.pareto import simplex_grid

DEMO = Path(__file__).parents[2] / "server/panacea/demo/adapter/evaluation.json"
PROMPTS = 12


@dataclass(frozen=True)
class Named:
    """The least that a report can be made of."""

    name: str
    evaluation: Evaluation


def made_up(
    name: str = "a model",
    dimensions: Sequence[str] = ("helpful", "harmless", "concise"),
    preferences: Sequence[tuple[float, ...]] | None = None,
    *,
    strength: float = 0.6,
    unit: float = 1.0,
    least: float = 0.2,
    prompts: int = PROMPTS,
    temperatures: Sequence[float] = (0.7,),
    examples: Sequence[EvaluationExample] | None = None,
    is_told: bool = True,
    reference: float = 0.0,
) -> Named:
    """Rewards from `least` to `least + strength`, times `unit`; `strength` 0 makes all points equal."""
    grid = list(preferences or simplex_grid(len(dimensions), 4 if len(dimensions) < 5 else 2))
    answers = [
        [
            [
                Answered(
                    "Yes.", _rewards(weights, prompt, strength, least, unit), 10 + prompt, int(is_told), int(is_told)
                )
            ]
            for prompt in range(prompts)
        ]
        for weights in grid
    ]
    corner = (reference * unit,) * len(dimensions)
    sweeps = tuple(summarise(dimensions, corner, each, grid, answers, resamples=40) for each in temperatures)
    if examples is None:
        examples = [example("How do I boil an egg?", grid)]
    return Named(
        name,
        Evaluation(
            f"{name}'s checkpoint",
            "2026-11-21",
            tuple(dimensions),
            corner,
            prompts,
            sweeps,
            tuple(examples),
            {"grid": "quarters"},
            {"second_turns": 0.5},
            format_version=FORMAT_VERSION,
        ),
    )


def example(
    prompt: str, grid: Sequence[tuple[float, ...]], text: str = "In water.", temperature: float = 0.7
) -> EvaluationExample:
    return EvaluationExample(
        prompt, temperature, tuple(EvaluationExampleAnswer(each, text, tuple(each)) for each in grid)
    )


def _rewards(weights: tuple[float, ...], prompt: int, strength: float, least: float, unit: float) -> tuple[float, ...]:
    spread = 0.05 * strength * ((prompt * 5) % 7 - 3) / 3
    return tuple(
        unit * (least + strength * (weight**0.5 * (1 + 0.1 * index)) + spread * (1 + index) / 2)
        for index, weight in enumerate(weights)
    )
