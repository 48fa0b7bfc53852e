"""Example answers, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from panacea.evaluation import EvaluationExample, EvaluationExampleAnswer
from panacea_train.charts.number_text import decimals_for, described, number, vertex
from panacea_train.report.shown_sweep import Measured

FOLD = 420
"""Answers longer than this are folded, in characters."""
KEPT = 280


@dataclass(frozen=True)
class ShownAnswer:
    """One answer; `short` is its beginning if it is folded."""

    text: str
    short: str
    rewards: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class AnswerRow:
    """The answers of all models at one preference; None for a model without one."""

    preference: str
    answers: Sequence[ShownAnswer | None]


@dataclass(frozen=True)
class PromptAnswers:
    """The answers to one prompt, at the vertices and at other preferences."""

    prompt: str
    temperature: float
    vertices: Sequence[AnswerRow]
    others: Sequence[AnswerRow]


def exchanges(runs: Sequence[Measured]) -> list[PromptAnswers]:
    """The example answers to the prompts for which every model has examples."""
    by_run = [{(each.prompt, each.temperature): each for each in run.evaluation.examples} for run in runs]
    dimensions = runs[0].evaluation.dimensions
    return [
        _exchange([examples[asked] for examples in by_run], dimensions)
        for asked in by_run[0]
        if all(asked in examples for examples in by_run)
    ]


def _exchange(examples: Sequence[EvaluationExample], dimensions: Sequence[str]) -> PromptAnswers:
    by_run = [{answer.preference: answer for answer in example.answers} for example in examples]
    preferences = list(dict.fromkeys(preference for answers in by_run for preference in answers))
    corners = sorted((corner, each) for each in preferences if (corner := vertex(each)) is not None)
    asked = {
        preference: AnswerRow(
            described(preference, dimensions), [_said(answers.get(preference), dimensions) for answers in by_run]
        )
        for preference in preferences
    }
    at_corners = [each for _, each in corners]
    others = [asked[each] for each in preferences if each not in at_corners]
    return PromptAnswers(examples[0].prompt, examples[0].temperature, [asked[each] for each in at_corners], others)


def _said(answer: EvaluationExampleAnswer | None, dimensions: Sequence[str]) -> ShownAnswer | None:
    if answer is None:
        return None
    rewards = [
        (name, number(value, decimals_for([value, 1.0])))
        for name, value in zip(dimensions, answer.rewards, strict=True)
    ]
    short = answer.text[:KEPT].rsplit(None, 1)[0] + " …" if len(answer.text) > FOLD else ""
    return ShownAnswer(answer.text, short, rewards)
