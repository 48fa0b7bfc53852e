"""The objectives against values computed by hand."""

from math import exp, log, nan

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, tensor

from panacea_train.objectives import (
    answer_logprobs,
    dpo_loss,
    dpo_losses_by_dimension,
    labelled_weights,
    preferred_weights,
    scalarised_targets,
    sft_loss,
    sft_losses_by_dimension,
    tchebycheff,
)


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def test_answer_logprobs_add_up_by_row() -> None:
    # exp(logits) are 1 : 3, so the tokens have probabilities 1/4 and 3/4; row 1 has no token.
    logits = tensor([[0.0, log(3)]] * 3)
    result = answer_logprobs(logits, tensor([0, 1, 1]), tensor([0, 0, 2]), 3)
    torch.testing.assert_close(result, tensor([log(1 / 4) + log(3 / 4), 0.0, log(3 / 4)]))


def test_answer_logprobs_are_float32_whatever_the_model_computes_in() -> None:
    logits = torch.randn(4, 9, dtype=torch.bfloat16)
    targets, rows = tensor([1, 2, 3, 4]), tensor([0, 0, 1, 1])
    result = answer_logprobs(logits, targets, rows, 2)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, answer_logprobs(logits.float(), targets, rows, 2))


def test_sft_is_the_mean_cross_entropy_of_all_tokens_for_equal_weights() -> None:
    logits, targets, rows = torch.randn(5, 7), tensor([0, 6, 2, 3, 3]), tensor([0, 0, 0, 1, 1])
    logprobs = answer_logprobs(logits, targets, rows, 2)
    for weight in (1.0, 0.2):
        loss = sft_loss(logprobs, tensor([3.0, 2.0]), torch.full((2,), weight))
        torch.testing.assert_close(loss, F.cross_entropy(logits, targets))


def test_sft_weighs_examples() -> None:
    loss = sft_loss(tensor([-3.0, -8.0, -100.0]), tensor([2.0, 4.0, 5.0]), tensor([1.0, 0.5, 0.0]))
    assert loss.item() == pytest.approx((1 * 3 + 0.5 * 8) / (1 * 2 + 0.5 * 4))
    assert sft_loss(tensor([-3.0]), tensor([2.0]), tensor([0.0])).item() == 0


def test_dpo_by_hand() -> None:
    policy = tensor([[-10.0, -12.0], [-5.0, -4.0]])
    reference = tensor([[-11.0, -11.5], [-5.0, -6.0]])
    # Margins: (1.0 - -0.5) * 0.3 = 0.45 and (0 - 2) * 0.3 = -0.6.
    first = -(0.9 * log(sigmoid(0.45)) + 0.1 * log(sigmoid(-0.45)))
    second = -(0.25 * log(sigmoid(-0.6)) + 0.75 * log(sigmoid(0.6)))
    loss = dpo_loss(policy, reference, tensor([0.9, 0.25]), beta=0.3)
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_dpo_of_the_reference_itself_is_log_2() -> None:
    same = torch.randn(4, 2)
    assert dpo_loss(same, same, torch.rand(4), beta=0.3).item() == pytest.approx(log(2))


def test_hard_labels_give_the_papers_dpo() -> None:
    policy, reference = torch.randn(4, 2), torch.randn(4, 2)
    ratios = policy - reference
    a_better = dpo_loss(policy, reference, torch.ones(4), beta=0.7)
    torch.testing.assert_close(a_better, -F.logsigmoid(0.7 * (ratios[:, 0] - ratios[:, 1])).mean())
    torch.testing.assert_close(dpo_loss(policy.flip(1), reference.flip(1), torch.zeros(4), beta=0.7), a_better)


def test_soft_labels_are_where_dpo_has_its_minimum() -> None:
    margin = tensor([2.0], requires_grad=True)
    target = tensor([sigmoid(0.5 * 2.0)])
    loss = dpo_loss(torch.stack((margin, torch.zeros(1)), dim=1), torch.zeros(1, 2), target, beta=0.5)
    (slope,) = torch.autograd.grad(loss, margin)
    assert slope.item() == pytest.approx(0, abs=1e-7)


def test_one_cross_entropy_is_the_linear_scalarisation_of_all_dimensions() -> None:
    generator = torch.Generator().manual_seed(0)
    policy, reference = (torch.randn(8, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    probabilities = torch.rand(8, 3, generator=generator, dtype=torch.float64)
    preference = torch.rand(8, 3, generator=generator, dtype=torch.float64)
    preference /= preference.sum(1, keepdim=True)

    def one_by_one(pair: int) -> Tensor:
        rows = slice(pair, pair + 1)
        losses = [dpo_loss(policy[rows], reference[rows], probabilities[rows, i], beta=0.3) for i in range(3)]
        return (preference[pair] * torch.stack(losses)).sum()

    scalarised = torch.stack([one_by_one(pair) for pair in range(8)]).mean()
    at_once = dpo_loss(policy, reference, scalarised_targets(probabilities, preference), beta=0.3)
    torch.testing.assert_close(at_once, scalarised, rtol=1e-12, atol=0)


def test_the_preferred_answer_and_both_of_a_tie() -> None:
    weights = preferred_weights(tensor([0.9, 0.5, 0.1]))
    assert weights.tolist() == [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]


def test_dimensions_that_nobody_labelled_have_no_say() -> None:
    probabilities = tensor([[1.0, nan, 0.0], [nan, 0.0, nan], [0.5, 1.0, 0.0]])
    preference = tensor([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0], [0.2, 0.5, 0.3]])
    torch.testing.assert_close(labelled_weights(probabilities, preference), tensor([0.5, 0.0, 1.0]))
    torch.testing.assert_close(scalarised_targets(probabilities, preference), tensor([0.4, 0.5, 0.6]))
    policy, reference = torch.randn(3, 2, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64)
    targets, weights = scalarised_targets(probabilities, preference), labelled_weights(probabilities, preference)
    z = 0.3 * (policy[:, 0] - policy[:, 1])
    by_hand = sum(
        preference[row, i].double() * F.binary_cross_entropy_with_logits(z[row], probabilities[row, i].double())
        for row in range(3)
        for i in range(3)
        if not probabilities[row, i].isnan()
    )
    loss = dpo_loss(policy, reference, targets.double(), 0.3, weights.double())
    torch.testing.assert_close(loss * 1.5, torch.as_tensor(by_hand))


def test_losses_by_dimension() -> None:
    policy = tensor([[2.0, 0.0], [0.0, 4.0]])
    losses = dpo_losses_by_dimension(policy, torch.zeros(2, 2), tensor([[1.0, nan, nan], [1.0, 0.0, nan]]), beta=0.5)
    expected = tensor([-(log(sigmoid(1)) + log(sigmoid(-2))) / 2, -log(sigmoid(2)), nan])
    torch.testing.assert_close(losses, expected, equal_nan=True)
    weights = tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    by_tokens = sft_losses_by_dimension(tensor([-3.0, -8.0]), tensor([2.0, 4.0]), weights)
    torch.testing.assert_close(by_tokens, tensor([11 / 6, 2.0, nan]), equal_nan=True)


def test_tchebycheff_is_the_largest_weighted_distance_from_the_ideal_point() -> None:
    losses = tensor([1.0, 3.0, 0.5])
    ideal = tensor([0.0, 2.5, 0.0])
    assert tchebycheff(losses, tensor([0.5, 0.4, 0.1]), ideal).item() == pytest.approx(0.5)
    assert tchebycheff(losses, tensor([0.1, 0.8, 0.1]), ideal).item() == pytest.approx(0.4)
    assert tchebycheff(losses, tensor([0.0, 0.0, 1.0]), ideal + 1).item() == pytest.approx(-0.5)  # not 0 of the others
    assert tchebycheff(tensor([nan, 3.0, nan]), tensor([0.5, 0.5, 0.0]), ideal).item() == pytest.approx(0.25)
    assert tchebycheff(tensor([nan, 3.0, 1.0]), tensor([1.0, 0.0, 0.0]), ideal).item() == 0


def test_only_the_worst_dimension_is_learned_from_with_tchebycheff() -> None:
    policy = tensor([[1.0, 0.0], [1.5, 0.0]], requires_grad=True)
    probabilities = tensor([[1.0, nan, nan], [nan, 1.0, nan]])
    losses = dpo_losses_by_dimension(policy, torch.zeros(2, 2), probabilities, beta=1.0)
    tchebycheff(losses, tensor([0.5, 0.4, 0.1]), torch.zeros(3)).backward()  # type: ignore[no-untyped-call]  # torch's
    assert policy.grad is not None
    torch.testing.assert_close(policy.grad, tensor([[-0.5, 0.5], [0.0, 0.0]]) * sigmoid(-1))
