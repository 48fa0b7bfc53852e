"""Examples as tensors: padded sequences, and the batch of each training step, shared by one or more forwards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from panacea.errors import ConfigError
from panacea_train.preference_draws import sample_preferences
from panacea_train.training_examples import Candidates, Demonstration, Example, PreferencePair, TokenIds, longest
from panacea_train.training_options import Selection

_ORDER, _DRAW = 0, 1
"""Separate the random numbers of an epoch's order from those of a step's draws."""

_POOL_BATCHES = 50
"""Number of batches that are sorted by length together. It is large enough to keep padding under a few per cent, and
small enough that the examples of a batch stay random."""


class Sequences(TypedDict):
    """Prompts with answers, padded on the right. Causal attention never sees the padding, so no mask is needed.

    The answers' last tokens are predicted but never read, and so are not in `input_ids`.
    """

    input_ids: Tensor
    """(rows, tokens) int64"""
    positions: Tensor
    """(n,) int64: where in the flattened `input_ids` an answer token is predicted; n answer tokens in all"""
    targets: Tensor
    """(n,) int64: these answer tokens"""
    rows: Tensor
    """(n,) int64: the rows they belong to"""
    lengths: Tensor
    """(rows,) float32: answer tokens of each row"""


class SharedForward(Sequences):
    """The rows of a step that one forward computes."""

    step_rows: Tensor
    """(rows,) int64: where in the step these rows are"""


class Batch(TypedDict):
    """A step's rows: answers a of all pairs, then their answers b, then the answers to imitate (SFT).

    All but `forwards` is about the whole step, and does not depend on how many forwards share it.
    """

    forwards: list[SharedForward]
    """Every row of the step in one of them; both answers of a pair in the same."""
    lengths: Tensor
    """(rows,) float32: answer tokens of each row"""
    preference: Tensor
    """(rows, m) float32"""
    pair_probabilities: Tensor
    """(pairs, m) float32; NaN for dimensions without a label"""
    pair_reference: Tensor
    """(pairs, 2) float32: log-probabilities of answers a and b under the bare base"""
    sft_weights: Tensor
    """(rows - 2 pairs,) float32"""
    sft_dimensions: Tensor
    """(rows - 2 pairs, m) float32: 1 for each dimension whose best answer the row is"""
    pair_share: Tensor
    """() float32: pairs in this step / its examples"""


def pack(sequences: Sequence[tuple[TokenIds, TokenIds]]) -> Sequences:
    """Pads at least one (prompt, answer) to one length. Raises `ValueError` for an empty prompt or answer."""
    longest_row = max(len(prompt) + len(answer) for prompt, answer in sequences) - 1
    input_ids = np.zeros((len(sequences), longest_row), dtype=np.int64)
    positions: list[NDArray[np.int64]] = []
    targets: list[TokenIds] = []
    for row, (prompt, answer) in enumerate(sequences):
        if len(prompt) == 0 or len(answer) == 0:
            raise ValueError("a sequence needs at least one token in its prompt and one in its answer")
        input_ids[row, : len(prompt)] = prompt
        input_ids[row, len(prompt) : len(prompt) + len(answer) - 1] = answer[:-1]
        positions.append(np.arange(len(answer)) + row * longest_row + len(prompt) - 1)
        targets.append(answer)
    lengths = np.array([len(answer) for answer in targets])
    return {
        "input_ids": torch.from_numpy(input_ids),
        "positions": torch.from_numpy(np.concatenate(positions)),
        "targets": torch.from_numpy(np.concatenate(targets).astype(np.int64)),
        "rows": torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)),
        "lengths": torch.from_numpy(lengths.astype(np.float32)),
    }


@dataclass(frozen=True)
class Sampling:
    """How the batches of a training run are drawn. Together with the examples it determines each batch."""

    batch_size: int
    """Examples in a step."""
    dimensions: int
    seed: int
    vertex_probability: float
    dirichlet_alpha: float
    selection: Selection
    one_preference: bool = False
    """All examples of a step share one preference."""
    fixed: tuple[float, ...] | None = None
    """If set, nothing is drawn and every example has this preference."""
    forwards: int = 1
    """Forwards that share a step. They change nothing else."""


class StepBatches(Dataset[Batch]):
    """Item s is the batch of step s: a pure function of the examples, the sampling and s.

    So a resumed run continues exactly without any saved state. Examples come in epochs, each in a new order. Examples
    that do not fill an epoch's last batch are skipped.
    """

    def __init__(
        self, examples: Sequence[Example], sampling: Sampling, steps: int, reference: NDArray[np.float32]
    ) -> None:
        """`reference` (examples, 2) float32: log-probabilities of a pair's answers; anything for other examples."""
        if not examples:
            raise ConfigError("the training file gives no examples: add lines to it")
        self._examples = examples
        self._sampling = sampling
        self._steps = steps
        self._reference = reference
        self._lengths = np.array([longest(example) for example in examples])
        self._size = min(sampling.batch_size, len(examples))
        self._per_epoch = len(examples) // self._size
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        return self._batch(self._indices(step), step)

    def longest(self) -> Batch:
        """The batch of the longest examples, which needs the most memory."""
        return self._batch(np.argsort(self._lengths)[-self._size :].tolist(), 0)

    def _batch(self, indices: Sequence[int], step: int) -> Batch:
        rng = np.random.default_rng((self._sampling.seed, _DRAW, step))
        drawn = self._draw(rng)
        pairs: list[tuple[PreferencePair, NDArray[np.float32]]] = []
        reference: list[NDArray[np.float32]] = []
        imitated: list[tuple[TokenIds, TokenIds, NDArray[np.float32], float, Sequence[bool]]] = []
        m = self._sampling.dimensions
        # For each forward, the numbers of its pairs and of its imitated answers.
        shares: list[tuple[range, range]] = []
        parts = np.array_split(np.arange(len(indices)), min(self._sampling.forwards, len(indices)))
        for part in parts:
            before = len(pairs), len(imitated)
            places: list[int] = part.tolist()
            for place in places:
                index, preference = indices[place], drawn[place]
                example = self._examples[index]
                match example:
                    case PreferencePair():
                        pairs.append((example, preference))
                        reference.append(self._reference[index])
                    case Demonstration():
                        given = example.preference
                        own = preference if given is None else np.asarray(given, dtype=np.float32)
                        imitated.append((example.prompt_ids, example.answer_ids, own, example.weight, [True] * m))
                    case Candidates():
                        for answer, weight, best_on in _chosen(example, preference, self._sampling.selection):
                            imitated.append(
                                (example.prompt_ids, example.answers_ids[answer], preference, weight, best_on)
                            )
            shares.append((range(before[0], len(pairs)), range(before[1], len(imitated))))
        sequences: list[tuple[TokenIds, TokenIds]] = [
            *((pair.prompt_ids, pair.answer_a_ids) for pair, _ in pairs),
            *((pair.prompt_ids, pair.answer_b_ids) for pair, _ in pairs),
            *((prompt, answer) for prompt, answer, *_ in imitated),
        ]
        count = len(pairs)
        of_pairs = [preference for _, preference in pairs]
        return {
            "forwards": [
                _forward(sequences, [*own, *(count + i for i in own), *(2 * count + i for i in others)])
                for own, others in shares
            ],
            "lengths": torch.tensor([len(answer) for _, answer in sequences], dtype=torch.float32),
            "preference": _float_tensor(of_pairs + of_pairs + [row[2] for row in imitated], m),
            "pair_probabilities": _float_tensor([pair.probabilities for pair, _ in pairs], m),
            "pair_reference": _float_tensor(reference, 2),
            "sft_weights": torch.tensor([row[3] for row in imitated], dtype=torch.float32),
            "sft_dimensions": _float_tensor([row[4] for row in imitated], m),
            "pair_share": torch.tensor(count / len(indices)),
        }

    def _draw(self, rng: np.random.Generator) -> NDArray[np.float32]:
        sampling = self._sampling
        if sampling.dimensions == 0:
            return np.zeros((self._size, 0), dtype=np.float32)
        if sampling.fixed is not None:
            return np.tile(np.asarray(sampling.fixed, dtype=np.float32), (self._size, 1))
        drawn = sample_preferences(
            rng,
            1 if sampling.one_preference else self._size,
            sampling.dimensions,
            sampling.vertex_probability,
            sampling.dirichlet_alpha,
        )
        return np.broadcast_to(drawn, (self._size, sampling.dimensions))

    def _indices(self, step: int) -> list[int]:
        epoch, batch = divmod(step, self._per_epoch)
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng((self._sampling.seed, _ORDER, epoch))
            self._order = (epoch, _order_by_length(self._lengths, self._size, rng))
        indices: list[int] = self._order[1][batch].tolist()
        return indices


def _forward(sequences: Sequence[tuple[TokenIds, TokenIds]], step_rows: Sequence[int]) -> SharedForward:
    """The forward of these rows of the step, padded to the longest of them alone."""
    return {**pack([sequences[row] for row in step_rows]), "step_rows": torch.tensor(step_rows)}


def _order_by_length(lengths: NDArray[np.int64], size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(batches, size) int64: a random order in which the examples of a batch have similar lengths."""
    order = rng.permutation(len(lengths))[: len(lengths) // size * size]
    pools = [order[start : start + _POOL_BATCHES * size] for start in range(0, len(order), _POOL_BATCHES * size)]
    batches = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools]).reshape(-1, size)
    return rng.permutation(batches)


def _chosen(
    candidates: Candidates, preference: NDArray[np.float32], selection: Selection
) -> Sequence[tuple[int, float, Sequence[bool]]]:
    """(answer, weight, dimensions it is the best on) for each answer of `candidates` that is imitated.

    The weights sum to 1, or to the part of `preference` that is on dimensions with rewards. At least one answer is
    returned.
    """
    weights = np.where(candidates.labelled, preference, 0).tolist()
    if selection == "reward":
        return [(candidates.best(weights), 1.0 if any(weights) else 0.0, candidates.labelled)]
    m = len(weights)
    best = [candidates.best(vertex) for vertex in np.eye(m).tolist()]
    chosen = dict.fromkeys(best[d] for d in range(m) if weights[d] > 0) or {0: None}
    mine = {answer: [weights[d] > 0 and best[d] == answer for d in range(m)] for answer in chosen}
    return [(answer, sum(weights[d] for d in range(m) if mine[answer][d]), mine[answer]) for answer in chosen]


def _float_tensor(rows: Sequence[Sequence[float] | Sequence[bool] | NDArray[np.float32]], columns: int) -> Tensor:
    return torch.from_numpy(np.asarray(rows, dtype=np.float32).reshape(len(rows), columns))
