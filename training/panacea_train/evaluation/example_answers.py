"""A selection of a sweep's answers for people to read."""

from collections.abc import Sequence

from panacea.evaluation import EvaluationExample, EvaluationExampleAnswer
from panacea_train.evaluation.sweep_summary import SweepAnswers, rounded
from panacea_train.prompts import evenly

PROMPTS = 3
POINTS = 15
"""More points would make the file and the report too long to read."""


def choose_examples(
    prompts: Sequence[str], preferences: Sequence[tuple[float, ...]], temperature: float, answers: SweepAnswers
) -> tuple[EvaluationExample, ...]:
    """The first sample of `answers[point][prompt][sample]` for a few prompts and points.

    The prompts are spread evenly over the list. The points are all vertices, where steering shows most, and others that
    are spread evenly.
    """
    vertices = [i for i, weights in enumerate(preferences) if max(weights) == sum(weights)]
    others = [i for i in range(len(preferences)) if i not in vertices]
    chosen = evenly(len(others), max(0, POINTS - len(vertices)))
    points = sorted([*vertices, *(others[i] for i in chosen)])
    return tuple(
        EvaluationExample(
            prompts[prompt],
            temperature,
            tuple(
                EvaluationExampleAnswer(
                    preferences[point], answer.text, tuple(rounded(float(r)) for r in answer.rewards)
                )
                for point in points
                for answer in answers[point][prompt][:1]
            ),
        )
        for prompt in evenly(len(prompts), PROMPTS)
    )
