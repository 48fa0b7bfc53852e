"""Cheap measurements of whether the model learns to tell preferences apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

import numpy as np
from numpy.typing import NDArray
from torch import nn

from panacea_train.answer_logprobs import score
from panacea_train.training_examples import Candidates, Demonstration, Example, PreferencePair, TokenIds

NEITHER = -1
DECIDED = 0.6
"""A label closer to a tie than this is not used: its dimension wants neither answer clearly."""


@dataclass(frozen=True)
class Probe:
    """An answer that is right under one preference and wrong under another."""

    prompt_ids: TokenIds
    answer_ids: TokenIds
    matched: Sequence[float]
    mismatched: Sequence[float]


def preference_probes(examples: Sequence[Example], dimensions: int, limit: int = 64) -> list[Probe]:
    """At most `limit` probes between vertices of the simplex, taken from all parts of `examples` in turn.

    An example gives one probe for each ordered pair of vertices that want different answers. A demonstration gives
    none, because its answer is right under one preference or under all.
    """
    vertices = np.eye(dimensions).tolist()
    # One from each example before the second of any.
    rounds = zip_longest(*(_probes_of(example, vertices) for example in spread(examples, limit)))
    return list(islice((probe for group in rounds for probe in group if probe is not None), limit))


def spread(examples: Sequence[Example], most: int) -> list[Example]:
    """At most `most` examples, evenly over all of them: files are often sorted."""
    chosen = np.linspace(0, len(examples) - 1, min(len(examples), most)).round().astype(int).tolist()
    return [examples[index] for index in chosen]


def _probes_of(example: Example, vertices: Sequence[Sequence[float]]) -> Iterator[Probe]:
    match example:
        case Demonstration():
            return
        case Candidates():
            says = example.labelled
            wanted = [example.best(vertex) if says[d] else NEITHER for d, vertex in enumerate(vertices)]
            answers = example.answers_ids
        case PreferencePair():
            wanted = [0 if p >= DECIDED else 1 if p <= 1 - DECIDED else NEITHER for p in example.probabilities]
            answers = [example.answer_a_ids, example.answer_b_ids]
    for i, matched in enumerate(vertices):
        for j, mismatched in enumerate(vertices):
            if wanted[i] != wanted[j] and NEITHER not in (wanted[i], wanted[j]):
                yield Probe(example.prompt_ids, answers[wanted[i]], matched, mismatched)


def preference_gap(model: nn.Module, probes: Sequence[Probe]) -> float:
    """Mean over `probes` of NLL(answer | mismatched) - NLL(answer | matched), in nats per answer.

    It is 0 for a model that ignores its preference, as every adapter does before its first step.
    """
    answers = [(probe.prompt_ids, probe.answer_ids) for probe in probes]
    matched, mismatched = (
        score(model, answers, np.array([getattr(probe, which) for probe in probes], dtype=np.float32))
        for which in ("matched", "mismatched")
    )
    return float((matched - mismatched).mean())


def vertex_losses(
    model: nn.Module, examples: Sequence[Example], reference: NDArray[np.float32], beta: float
) -> dict[int, float]:
    """The loss of each dimension at its vertex, where no other dimension counts.

    It is DPO's loss for pairs, and nats per token of the best answer for candidates; a mixture has their mean by
    examples. `reference` (examples, 2) comes from `reference_logprobs`. Unlabelled dimensions are left out.
    """
    labels = [_labels(example) for example in examples]
    result: dict[int, float] = {}
    for dimension in range(max(map(len, labels), default=0)):
        indices = [index for index, says in enumerate(labels) if says and says[dimension]]
        if indices:
            chosen = [examples[index] for index in indices]
            result[dimension] = _vertex_loss(model, chosen, dimension, reference[indices], beta)
    return result


def _labels(example: Example) -> Sequence[bool]:
    """For each dimension whether `example` has a label for it."""
    match example:
        case Demonstration():
            return []
        case Candidates():
            return example.labelled
        case PreferencePair():
            return [not np.isnan(p) for p in example.probabilities]


def _vertex_loss(
    model: nn.Module, examples: Sequence[Example], dimension: int, reference: NDArray[np.float32], beta: float
) -> float:
    """The mean loss of these examples, all labelled for `dimension`, at its vertex."""
    answers: list[tuple[TokenIds, TokenIds]] = []
    for example in examples:
        if isinstance(example, PreferencePair):
            answers += [(example.prompt_ids, example.answer_a_ids), (example.prompt_ids, example.answer_b_ids)]
        elif isinstance(example, Candidates):
            answers.append((example.prompt_ids, example.answers_ids[_best(example, dimension)]))
    vertex = np.zeros(max(len(_labels(example)) for example in examples), dtype=np.float32)
    vertex[dimension] = 1
    logprobs = iter(score(model, answers, np.tile(vertex, (len(answers), 1))).tolist())
    losses: list[float] = []
    for example, (reference_a, reference_b) in zip(examples, reference.tolist(), strict=True):
        if isinstance(example, PreferencePair):
            margin = beta * ((next(logprobs) - reference_a) - (next(logprobs) - reference_b))
            p = example.probabilities[dimension]
            losses.append(float(p * np.logaddexp(0, -margin) + (1 - p) * np.logaddexp(0, margin)))
        elif isinstance(example, Candidates):
            losses.append(-next(logprobs) / len(example.answers_ids[_best(example, dimension)]))
    return float(np.mean(losses))


def _best(candidates: Candidates, dimension: int) -> int:
    return candidates.best([float(d == dimension) for d in range(len(candidates.labelled))])
