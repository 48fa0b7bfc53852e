"""Is the model learning to tell preferences apart? The cheapest number that answers it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

import numpy as np
from torch import nn

from panacea_train.examples import Candidates, Demonstration, Example, PreferencePair, Tokens
from panacea_train.scoring import score

NEITHER = -1
DECIDED = 0.6
"""A label nearer to a tie than this says too little about which answer its dimension wants."""


@dataclass(frozen=True)
class Probe:
    """An answer that is right under one preference and wrong under another."""

    prompt_ids: Tokens
    answer_ids: Tokens
    matched: Sequence[float]
    mismatched: Sequence[float]


def preference_probes(examples: Sequence[Example], dimensions: int, limit: int = 64) -> list[Probe]:
    """At most `limit` probes between vertices of the simplex, taken from all parts of `examples` in turn.

    An example gives one for each ordered pair of vertices that want different answers of it; a demonstration, whose
    answer is right under one preference or under all, gives none.
    """
    vertices = np.eye(dimensions).tolist()
    stride = max(1, len(examples) // limit)
    spread = examples[::stride]
    # One from each example before the second of any.
    rounds = zip_longest(*(_probes_of(example, vertices) for example in spread))
    return list(islice((probe for group in rounds for probe in group if probe is not None), limit))


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

    0 for a model that ignores its preference, as every adapter does before its first step.
    """
    answers = [(probe.prompt_ids, probe.answer_ids) for probe in probes]
    matched, mismatched = (
        score(model, answers, np.array([getattr(probe, which) for probe in probes], dtype=np.float32))
        for which in ("matched", "mismatched")
    )
    return float((matched - mismatched).mean())
