"""Building training examples from a file's records."""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

from panacea_train.data.encoding import ConversationEncoder
from panacea_train.data.training_records import Compared, Record, Scored, Shown, scores_of
from panacea_train.training_examples import Candidates, Demonstration, Example, PreferencePair
from panacea_train.training_options import Objective


def to_examples(
    record: Record,
    dimensions: Sequence[str],
    encoder: ConversationEncoder,
    objective: Objective,
    label_temperature: float = 0.0,
) -> list[Example]:
    """The examples that `record` gives for `objective`.

    | record | SFT | DPO |
    |---|---|---|
    | scored answers | candidates; a preference chooses one | every two answers that differ on a dimension |
    | a pair | two candidates | the pair |
    | an answer to imitate | a demonstration | a demonstration |

    For DPO a difference of scores becomes the probability sigmoid(difference / `label_temperature`), or 0, 0.5 or 1
    when that is 0.

    Raises `ValueError` with the reason if the model cannot take the record's conversation.
    """
    prompt = encoder.prompt(record.prompt)
    if isinstance(record, Shown):
        weights = record.preference
        total = sum(weights.values()) if weights else 0.0
        preference = [weights.get(name, 0.0) / total for name in dimensions] if weights else None
        return [Demonstration(prompt.ids, encoder.answer(prompt, record.answer), preference)]
    answers = [encoder.answer(prompt, answer) for answer in record.answers]
    by_dimension = [scores_of(record, name) for name in dimensions]
    if objective == "sft":
        return [Candidates(prompt.ids, answers, list(zip(*by_dimension, strict=True)))]
    if isinstance(record, Compared):
        return [PreferencePair(prompt.ids, answers[0], answers[1], [scores[0] for scores in by_dimension])]
    return [
        PreferencePair(prompt.ids, answers[a], answers[b], probabilities)
        for a, b, probabilities in _compared(record, by_dimension, label_temperature)
    ]


def _compared(
    record: Scored, by_dimension: Sequence[Sequence[float]], temperature: float
) -> Iterator[tuple[int, int, list[float]]]:
    for a, b in combinations(range(len(record.answers)), 2):
        differences = [scores[a] - scores[b] for scores in by_dimension]
        if any(differences):
            yield a, b, [_probability(difference, temperature) for difference in differences]


def _probability(difference: float, temperature: float) -> float:
    if temperature == 0:
        return 0.5 if difference == 0 else float(difference > 0)
    # Beyond 700 exp overflows, and the probability is 0 or 1 long before.
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, difference / temperature))))
