"""Some of a sweep's answers, to be read by people."""

from collections.abc import Sequence

from panacea_train.evaluation.schema import Example, ExampleAnswer
from panacea_train.evaluation.summary import SweepAnswers

PROMPTS = 3
POINTS = 15
"""Beyond so many the file and the report would be longer than anybody reads."""


def choose_examples(
    prompts: Sequence[str], preferences: Sequence[tuple[float, ...]], temperature: float, answers: SweepAnswers
) -> tuple[Example, ...]:
    """The first sample of `answers[point][prompt][sample]` for a few prompts and points, evenly over both lists."""
    points = evenly(len(preferences), POINTS)
    return tuple(
        Example(
            prompts[prompt],
            temperature,
            tuple(
                ExampleAnswer(preferences[point], answer.text, tuple(round(float(r), 4) for r in answer.rewards))
                for point in points
                for answer in answers[point][prompt][:1]
            ),
        )
        for prompt in evenly(len(prompts), PROMPTS)
    )


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`: the first, the last unless `most` is 1, and others between."""
    if count <= most:
        return list(range(count))
    if most == 1:
        return [0]
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]
