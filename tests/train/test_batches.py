"""Examples as tensors, and the batch of each step."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from panacea.errors import ConfigError
from panacea_train.batches import Batch, Sampling, StepBatches, pack
from panacea_train.training_examples import Candidates, Demonstration, Example, PreferencePair, check_example

SAMPLING = Sampling(batch_size=4, dimensions=3, seed=7, vertex_probability=0.3, dirichlet_alpha=1.0, selection="reward")
PAIR = PreferencePair([1, 2], [3, 4, 5], [6], (0.9, 0.5, 0.0))
SHOWN = Demonstration([1], [7, 8], preference=(0.0, 0.5, 0.5), weight=2.0)
CANDIDATES = Candidates([1, 2], [[9], [10, 11], [12]], [(1, 0, 0.5), (0, 1, 0), (0.2, 0.2, 1)])


def batches(examples: Sequence[Example], steps: int = 20, sampling: Sampling = SAMPLING) -> StepBatches:
    reference = np.arange(2 * len(examples), dtype=np.float32).reshape(-1, 2)
    return StepBatches(examples, sampling, steps, reference)


def texts(count: int) -> list[Demonstration]:
    """Demonstrations that are told apart by their first answer token, with lengths from 2 to 20."""
    lengths = np.random.default_rng(0).integers(1, 20, count)
    return [Demonstration([1], [10 + i, *[2] * int(n)]) for i, n in enumerate(lengths)]


def first_tokens(batch: Batch) -> list[int]:
    (forward,) = batch["forwards"]
    starts = forward["lengths"].cumsum(0).long() - forward["lengths"].long()
    return forward["targets"][starts].tolist()


def test_packed_sequences_are_padded_on_the_right_and_know_their_answers() -> None:
    packed = pack([([1, 2], [3, 4, 5]), ([6], [7])])
    # The last token of an answer is predicted, but nothing is predicted from it.
    assert packed["input_ids"].tolist() == [[1, 2, 3, 4], [6, 0, 0, 0]]
    assert packed["positions"].tolist() == [1, 2, 3, 4]
    assert packed["targets"].tolist() == [3, 4, 5, 7]
    assert packed["rows"].tolist() == [0, 0, 0, 1]
    assert packed["lengths"].tolist() == [3.0, 1.0]


@pytest.mark.parametrize("wrong", [([], [1]), ([1], [])])
def test_empty_prompts_and_answers_are_refused(wrong: tuple[list[int], list[int]]) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        pack([([1], [2]), wrong])


def test_a_step_has_all_of_a_pair_and_of_the_answers_to_imitate() -> None:
    batch = batches([PAIR, SHOWN], sampling=replace(SAMPLING, batch_size=2))[0]
    (forward,) = batch["forwards"]
    assert forward["input_ids"].tolist() == [[1, 2, 3, 4], [1, 2, 0, 0], [1, 7, 0, 0]]
    assert batch["pair_probabilities"].tolist() == [[pytest.approx(0.9), 0.5, 0.0]]
    assert batch["pair_reference"].tolist() == [[0.0, 1.0]]
    assert batch["sft_weights"].tolist() == [2.0]
    assert batch["pair_share"].item() == 0.5
    # Both answers of the pair under the preference that was drawn, the demonstration under its own.
    assert torch.equal(batch["preference"][0], batch["preference"][1])
    assert batch["preference"][0].sum().item() == pytest.approx(1)
    assert batch["preference"][2].tolist() == [0.0, 0.5, 0.5]


def test_a_step_is_a_function_of_the_seed_and_its_number() -> None:
    first, again, other = (batches(texts(30), sampling=replace(SAMPLING, seed=seed)) for seed in (7, 7, 8))
    for step in (13, 2, 19, 0):
        torch.testing.assert_close(dict(first[step]), dict(again[step]), rtol=0, atol=0)
    assert any(first_tokens(first[step]) != first_tokens(other[step]) for step in range(20))
    assert not torch.equal(first[0]["preference"], first[1]["preference"])


def test_an_epoch_has_every_example_once_and_the_next_another_order() -> None:
    drawn = batches(texts(28))
    epochs = [[tuple(first_tokens(drawn[step])) for step in range(start, start + 7)] for start in (0, 7)]
    for epoch in epochs:
        assert sorted(token for batch in epoch for token in batch) == list(range(10, 38))
    assert epochs[0] != epochs[1]


def test_batches_hold_sequences_of_similar_length() -> None:
    drawn = batches(texts(400), steps=100)
    inputs = [drawn[step]["forwards"][0]["input_ids"] for step in range(100)]
    padded = sum(rows.numel() for rows in inputs)
    tokens = sum(int(drawn[step]["lengths"].sum()) for step in range(100))
    assert padded < 1.05 * tokens
    widths = [rows.shape[1] for rows in inputs[:50]]
    assert widths != sorted(widths)


def test_fewer_examples_than_a_batch_wants_make_a_smaller_batch() -> None:
    assert len(batches(texts(3))[5]["lengths"]) == 3
    with pytest.raises(ConfigError, match="no examples"):
        batches([])


def test_the_drawn_preference_chooses_among_candidates() -> None:
    drawn = batches([CANDIDATES] * 4, steps=50)
    seen: set[int] = set()
    for step in range(50):
        batch = drawn[step]
        rewards = batch["preference"].double() @ torch.tensor(CANDIDATES.rewards).double().T
        expected = [CANDIDATES.answers_ids[best][0] for best in rewards.argmax(1).tolist()]
        assert first_tokens(batch) == expected
        assert batch["sft_weights"].tolist() == [1.0] * 4
        seen |= set(expected)
    assert seen == {9, 10, 12}


def test_linear_scalarisation_imitates_the_best_of_each_dimension_by_its_weight() -> None:
    # One answer is the best of two dimensions, so it has the weights of both.
    twice = Candidates([1], [[9], [10]], [(1, 0, 1), (0, 1, 0)])
    drawn = batches([twice], sampling=replace(SAMPLING, batch_size=1, selection="loss"))
    shapes: set[int] = set()
    for step in range(20):
        batch = drawn[step]
        helpful, harmless, concise = batch["preference"][0].tolist()
        expected = {9: helpful + concise, 10: harmless}
        weights = dict(zip(first_tokens(batch), batch["sft_weights"].tolist(), strict=True))
        assert weights == pytest.approx({token: weight for token, weight in expected.items() if weight > 0})
        shapes.add(len(weights))
    assert shapes == {1, 2}


def test_without_dimensions_there_are_no_preferences() -> None:
    batch = batches(texts(8), sampling=replace(SAMPLING, dimensions=0))[0]
    assert batch["preference"].shape == (4, 0)
    assert batch["pair_probabilities"].shape == (0, 0)
    assert batch["pair_reference"].shape == (0, 2)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (Demonstration([], [1]), "at least one token"),
        (Candidates([1], [], []), "at least one token"),
        (PreferencePair([1], [1], [], (0, 0, 0)), "at least one token"),
        (Demonstration([1] * 5, [1] * 6), "11 tokens are more than the model's 10"),
        (Demonstration([1], [1], preference=(1, 0)), "each of 3 dimensions"),
        (Demonstration([1], [1], weight=-1), "weight is -1"),
        (Candidates([1], [[1], [2]], [(1, 0, 0)]), "1 rows of rewards for 2 answers"),
        (Candidates([1], [[1]], [(1, 0)]), "each of 3 dimensions"),
        (PreferencePair([1], [1], [2], (0.5, 0.5)), "each of 3 dimensions"),
        (PreferencePair([1], [1], [2], (0.5, 0.5, 1.1)), "not between 0 and 1"),
        (PreferencePair([1], [1], [2], (float("nan"),) * 3), "no dimension says which answer is better"),
    ],
)
def test_examples_that_do_not_fit_are_refused(example: Example, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_example(example, dimensions=3, max_tokens=10)


def test_examples_that_fit_are_not() -> None:
    for example in (PAIR, SHOWN, CANDIDATES, Demonstration([1], [2])):
        check_example(example, dimensions=3, max_tokens=10)
    with pytest.raises(ValueError, match="demonstrations only"):
        check_example(PAIR, dimensions=0)
