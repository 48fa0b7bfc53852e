"""The content of one line of a training file, independent of its format. Plain Python."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from panacea.text.chat_template import ChatMessage


@dataclass(frozen=True)
class Scored:
    """Answers to one prompt, with their scores on every dimension. Only differences and order matter."""

    prompt: Sequence[ChatMessage]
    answers: Sequence[str]
    scores: Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Compared:
    """Two answers to one prompt. `better`: the probability that the first is better (0.5: a tie), by dimension."""

    prompt: Sequence[ChatMessage]
    answers: tuple[str, str]
    better: Mapping[str, float]


@dataclass(frozen=True)
class Shown:
    """One answer to imitate, under one preference (weights by dimension) or under all."""

    prompt: Sequence[ChatMessage]
    answer: str
    preference: Mapping[str, float] | None


Record = Scored | Compared | Shown


def answers_of(record: Record) -> Sequence[str]:
    """Every answer in `record`."""
    return [record.answer] if isinstance(record, Shown) else record.answers


def dimensions_of(record: Record) -> Iterator[str]:
    """The dimensions that `record` names, possibly repeated."""
    match record:
        case Scored():
            for scores in record.scores:
                yield from scores
        case Compared():
            yield from record.better
        case Shown():
            yield from record.preference or ()


def scores_of(record: Scored | Compared, dimension: str) -> list[float]:
    """Each answer's score on `dimension`; NaN if the record has none."""
    if isinstance(record, Scored):
        return [scores[dimension] for scores in record.scores]
    first = record.better.get(dimension, math.nan)
    return [first, 1 - first]


def disagree(record: Scored | Compared, one: str, other: str) -> bool:
    """Whether some answer is better than another on dimension `one` and worse on `other`."""
    scores, others = scores_of(record, one), scores_of(record, other)
    return any((scores[a] - scores[b]) * (others[a] - others[b]) < 0 for a, b in combinations(range(len(scores)), 2))
