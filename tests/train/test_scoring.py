"""Log-probabilities of answers, and the gap between preferences, against plain transformers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM

from panacea_train.answer_logprobs import reference_logprobs, score, sequence_logprobs
from panacea_train.batches import pack
from panacea_train.method import steered
from panacea_train.preference_gap import Probe, preference_gap, preference_probes
from panacea_train.training_examples import Candidates, Demonstration, Example, PreferencePair, TokenIds
from tests.train.tiny import PEFT_WARNING, adapted, tiny_llama

pytestmark = pytest.mark.filterwarnings(PEFT_WARNING)


def random_answers(count: int) -> list[tuple[list[int], list[int]]]:
    rng = np.random.default_rng(0)
    return [
        (rng.integers(1, 50, rng.integers(1, 9)).tolist(), rng.integers(1, 50, rng.integers(1, 20)).tolist())
        for _ in range(count)
    ]


@torch.no_grad()
def one_by_one(model: nn.Module, answers: list[tuple[list[int], list[int]]]) -> NDArray[np.float32]:
    """Each sequence alone, with transformers' own loss: no padding, no choice of positions."""
    result: list[float] = []
    for prompt, answer in answers:
        labels = torch.tensor([[-100] * len(prompt) + answer])
        loss = model(input_ids=torch.tensor([prompt + answer]), labels=labels).loss
        result.append(-loss.item() * len(answer))
    return np.array(result, dtype=np.float32)


def test_scores_are_those_of_each_sequence_alone() -> None:
    answers = random_answers(150)  # more than two forwards
    np.testing.assert_allclose(score(tiny_llama(), answers, None), one_by_one(tiny_llama(), answers), atol=2e-4)


def test_each_row_is_scored_under_its_preference() -> None:
    answers = random_answers(70)
    model = adapted()
    preferences = np.random.default_rng(1).dirichlet(np.ones(3), 70).astype(np.float32)
    expected: list[float] = []
    for answer, preference in zip(answers, preferences, strict=True):
        with steered(model, torch.from_numpy(preference)):
            expected.append(one_by_one(model, [answer])[0])
    np.testing.assert_allclose(score(model, answers, preferences), expected, atol=2e-4)
    np.testing.assert_allclose(score(model, answers, None), one_by_one(tiny_llama(), answers), atol=2e-4)


def test_what_a_family_does_after_its_head_is_kept() -> None:
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        final_logit_softcapping=1.0,
        initializer_range=0.5,
    )
    model = Gemma2ForCausalLM(config)
    answers = random_answers(5)
    np.testing.assert_allclose(score(model, answers, None), one_by_one(model, answers), atol=2e-4)


def test_the_model_is_left_as_it_was() -> None:
    model = tiny_llama()
    model.train()
    score(model, random_answers(2), None)
    assert model.training
    ids = torch.tensor([[1, 2, 3]])
    assert model(ids).logits.shape == (1, 3, 50)


def test_gradients_flow_from_the_answers_only() -> None:
    model = tiny_llama()
    sequence_logprobs(model, pack([([1, 2], [3]), ([4], [5, 6])])).sum().backward()  # type: ignore[no-untyped-call]  # torch's
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    other = tiny_llama()
    log_probabilities = F.log_softmax(other(ids).logits, dim=-1)
    (log_probabilities[0, 1, 3] + log_probabilities[1, 0, 5] + log_probabilities[1, 1, 6]).backward()  # type: ignore[no-untyped-call]  # torch's
    for (name, mine), (_, expected) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(mine.grad, expected.grad, msg=name, atol=1e-5, rtol=1e-4)


def test_the_reference_of_pairs_is_the_bare_base() -> None:
    (first, a), (_, b) = random_answers(2)
    examples: list[Example] = [Demonstration([1], [2]), PreferencePair(first, a, b, (1, 0, 0)), Demonstration([1], [2])]
    reference = reference_logprobs(adapted(), examples, progress=False)
    assert reference[[0, 2]].tolist() == [[0, 0], [0, 0]]
    np.testing.assert_allclose(reference[1], one_by_one(tiny_llama(), [(first, a), (first, b)]), atol=1e-4)


def test_the_reference_shows_its_progress(capfd: pytest.CaptureFixture[str]) -> None:
    reference_logprobs(adapted(), [PreferencePair([1], [2], [3], (1, 0, 0))] * 3)
    assert "reference log-probabilities: 100%" in capfd.readouterr().err


def test_the_gap_is_the_mean_difference_of_log_probabilities() -> None:
    model = adapted()
    probes = [
        Probe([1, 2], [3, 4, 5], matched=(1, 0, 0), mismatched=(0, 0, 1)),
        Probe([6], [7], matched=(0, 1, 0), mismatched=(0.5, 0.5, 0)),
    ]

    def log_probability(probe: Probe, preference: TokenIds | tuple[float, ...]) -> float:
        with steered(model, torch.tensor(preference)):
            return float(one_by_one(model, [(list(probe.prompt_ids), list(probe.answer_ids))])[0])

    differences = [log_probability(p, tuple(p.matched)) - log_probability(p, tuple(p.mismatched)) for p in probes]
    assert preference_gap(model, probes) == pytest.approx(sum(differences) / 2, abs=1e-4)
    assert preference_gap(adapted(trained=False), probes) == 0


def test_probes_are_where_dimensions_want_different_answers() -> None:
    pair = PreferencePair([1], [2], [3], (0.9, 0.5, 0.1))
    agreed = PreferencePair([1], [2], [3], (0.9, 0.8, 0.7))
    several = Candidates([4], [[5], [6]], [(1, 0, 0), (0, 1, 0)])  # a tie takes the first
    helpful, harmless, concise = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
    found = {
        (tuple(p.answer_ids), tuple(p.matched), tuple(p.mismatched))
        for p in preference_probes([pair, agreed, several, Demonstration([1], [2])], 3)
    }
    assert found == {
        ((2,), helpful, concise),
        ((3,), concise, helpful),
        ((5,), helpful, harmless),
        ((6,), harmless, helpful),
        ((6,), harmless, concise),
        ((5,), concise, harmless),
    }


def test_probes_come_from_all_parts_of_the_examples() -> None:
    pairs = [PreferencePair([i], [2], [3], (1, 0, 0)) for i in range(19)]
    probes = preference_probes(pairs, 3, limit=10)
    assert len(probes) == 10
    assert {probe.prompt_ids[0] for probe in probes} == set(range(0, 19, 2))
