"""Log-probabilities of answers under a model."""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from panacea_train.batches import Sequences, pack
from panacea_train.method import find_steering, steered
from panacea_train.objectives import answer_logprobs
from panacea_train.training_examples import Example, PreferencePair, TokenIds

SCORING_ROWS = 64
"""Sequences in one forward without gradients."""
SCORING_TOKENS = 16_384
"""Tokens in one such forward, padding included: with a vocabulary of 128,000 their logits may take 12 GB."""


def sequence_logprobs(model: nn.Module, sequences: Sequences) -> Tensor:
    """log p(answer | prompt) of each row of `sequences`, (rows,) float32, with gradients where they are enabled.

    The output head, at small models the largest matrix, is computed for the answers' tokens only. `model` is a causal
    language model of transformers, wrapped by peft or not; `sequences` are on its device.
    """
    with _head_only_at(model, sequences["positions"]):
        logits: Tensor = model(input_ids=sequences["input_ids"], use_cache=False).logits
    return answer_logprobs(logits.flatten(0, 1), sequences["targets"], sequences["rows"], len(sequences["lengths"]))


@contextmanager
def _head_only_at(model: nn.Module, positions: Tensor) -> Generator[None]:
    """Within this context the logits of `model` are (1, n, vocabulary): those at `positions` of the flattened batch.

    This is a hook on the head and not a call of the model without its head. So the steps that some families apply to
    the logits afterwards (soft caps, scaling) still run.
    """

    def select(_: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
        return (arguments[0].flatten(0, 1)[positions][None],)

    head: nn.Module = model.get_output_embeddings()  # type: ignore[operator]  # any causal model of transformers
    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def under(model: nn.Module, preference: Tensor | None) -> AbstractContextManager[None]:
    """`steered`, or an empty context for a model without adapter, so that the same trainer trains a base model."""
    return nullcontext() if find_steering(model) is None else steered(model, preference)


def score(
    model: nn.Module,
    answers: Sequence[tuple[TokenIds, TokenIds]],
    preferences: NDArray[np.float32] | None,
    progress: str | None = None,
) -> NDArray[np.float32]:
    """log p(answer | prompt) of many (prompt, answer) pairs, (n,) float32, without gradients and in evaluation mode.

    `preferences` (n, m), or None: the bare base. `progress` names a progress bar.
    """
    device = next(model.parameters()).device
    result = np.empty(len(answers), dtype=np.float32)
    by_length = np.argsort([len(prompt) + len(answer) for prompt, answer in answers], kind="stable")
    was_training = model.training
    model.eval()
    bar = tqdm(total=len(answers), desc=progress, unit=" answers", disable=progress is None, dynamic_ncols=True)
    with torch.no_grad(), bar:
        for chunk in _chunks(by_length, [len(prompt) + len(answer) for prompt, answer in answers]):
            packed = pack([answers[i] for i in chunk])
            sequences = cast(Sequences, {name: cast(Tensor, value).to(device) for name, value in packed.items()})
            with under(model, None if preferences is None else torch.from_numpy(preferences[chunk]).to(device)):
                result[chunk] = sequence_logprobs(model, sequences).cpu().numpy()
            bar.update(len(chunk))
    model.train(was_training)
    return result


def _chunks(by_length: NDArray[np.intp], lengths: Sequence[int]) -> Generator[NDArray[np.intp]]:
    """`by_length`, indices of growing lengths, in parts for one forward each."""
    start = 0
    for end in range(1, len(by_length) + 1):
        is_full = end == len(by_length) or end - start == SCORING_ROWS
        if is_full or (end - start + 1) * lengths[by_length[end]] > SCORING_TOKENS:
            yield by_length[start:end]
            start = end


def reference_logprobs(model: nn.Module, examples: Sequence[Example], *, progress: bool = True) -> NDArray[np.float32]:
    """The reference of DPO: log-probabilities of each pair's answers under the bare base, (examples, 2) float32.

    `model` is the model to train, so no second model is loaded. Examples that are not pairs get zeros.
    """
    result = np.zeros((len(examples), 2), dtype=np.float32)
    pairs = [(index, example) for index, example in enumerate(examples) if isinstance(example, PreferencePair)]
    if pairs:
        answers: list[tuple[TokenIds, TokenIds]] = [
            (pair.prompt_ids, answer) for _, pair in pairs for answer in (pair.answer_a_ids, pair.answer_b_ids)
        ]
        scores = score(model, answers, None, progress="reference log-probabilities" if progress else None)
        result[[index for index, _ in pairs]] = scores.reshape(-1, 2)
    return result
