"""The loss of a training step, and its gradient, however many forwards share the step."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from panacea_train.answer_logprobs import sequence_logprobs, under
from panacea_train.batches import Batch, SharedForward
from panacea_train.objectives import (
    dpo_loss,
    dpo_losses_by_dimension,
    labelled_weights,
    preferred_weights,
    scalarised_targets,
    sft_loss,
    sft_losses_by_dimension,
    tchebycheff,
)
from panacea_train.training_options import LossAggregation


class LossParts(NamedTuple):
    """A step's loss and the terms that it is made of, scalars; None for a term without examples."""

    loss: Tensor
    dpo: Tensor | None = None
    preferred_nll: Tensor | None = None
    nll: Tensor | None = None


class StepLoss:
    """DPO and a little SFT for a step's pairs, SFT for its other examples.

    pairs / examples * (DPO + sft_weight * SFT(preferred answers)) + others / examples * SFT

    It is a function of the log-probabilities of all the step's rows. Each term is a ratio of sums over the step, or a
    maximum of such ratios. So it cannot be computed forward by forward and averaged.

    The preferred answer is the one with the larger preference-weighted probability, however losses are aggregated.
    """

    def __init__(self, aggregation: LossAggregation, beta: float, sft_weight: float, ideal: Tensor) -> None:
        self._tchebycheff = aggregation == "tchebycheff"
        self._beta = beta
        self._sft_weight = sft_weight
        self._ideal = ideal

    def __call__(self, batch: Batch, logprobs: Tensor) -> LossParts:
        """`logprobs` (rows,) of the whole step."""
        pairs = len(batch["pair_probabilities"])
        share = batch["pair_share"]
        loss = logprobs.new_zeros(())
        dpo = preferred = nll = None
        if pairs:
            dpo, preferred = self._of_pairs(batch, logprobs[: 2 * pairs], pairs)
            loss = loss + share * (dpo + self._sft_weight * preferred)
        if len(logprobs) > 2 * pairs:
            nll = self._of_imitated(batch, logprobs[2 * pairs :], 2 * pairs)
            loss = loss + (1 - share) * nll
        return LossParts(loss, dpo, preferred, nll)

    def backward(
        self, model: nn.Module, batch: Batch, computing: Callable[[], AbstractContextManager[None]]
    ) -> LossParts:
        """Adds the step's gradient to the parameters', forward by forward; returns the loss without a graph.

        In each forward the loss is a function of that forward's rows, and the other rows are constants. Linear
        scalarisation is a sum over rows, or pairs of rows, divided by constants, so these constants do not matter to
        the gradient. Tchebycheff's maximum needs their values: with several forwards, a first pass without gradients
        computes them. `computing` is entered for each forward; it may set the precision.
        """
        forwards = batch["forwards"]
        known: Tensor | None = None
        if self._tchebycheff and len(forwards) > 1:
            with torch.no_grad(), computing():
                known = logprobs_of(model, batch)
        found: list[Tensor] = []
        for forward in forwards:
            with computing():
                own = _forward_logprobs(model, batch, forward)
            others = own.new_zeros(len(batch["lengths"])) if known is None else known
            values = others.index_copy(0, forward["step_rows"], own.detach()).requires_grad_()
            (gradient,) = torch.autograd.grad(self(batch, values).loss, values)
            torch.autograd.backward(own, gradient[forward["step_rows"]])
            found.append(own.detach())
        with torch.no_grad():
            return self(batch, _in_step_order(batch, found))

    def _of_pairs(self, batch: Batch, logprobs: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
        """DPO, and the SFT term on the preferred answers."""
        policy = logprobs.view(2, pairs).t()
        probabilities, preference = batch["pair_probabilities"], batch["preference"][:pairs]
        targets, weights = scalarised_targets(probabilities, preference), labelled_weights(probabilities, preference)
        if self._tchebycheff:
            losses = dpo_losses_by_dimension(policy, batch["pair_reference"], probabilities, self._beta)
            dpo = tchebycheff(losses, preference[0], self._ideal)
        else:
            dpo = dpo_loss(policy, batch["pair_reference"], targets, self._beta, weights)
        preferred = (preferred_weights(targets) * weights[:, None]).t().reshape(-1)
        return dpo, sft_loss(logprobs, batch["lengths"][: 2 * pairs], preferred)

    def _of_imitated(self, batch: Batch, logprobs: Tensor, first_row: int) -> Tensor:
        lengths = batch["lengths"][first_row:]
        if not self._tchebycheff:
            return sft_loss(logprobs, lengths, batch["sft_weights"])
        losses = sft_losses_by_dimension(logprobs, lengths, batch["sft_dimensions"])
        return tchebycheff(losses, batch["preference"][first_row], self._ideal)


def logprobs_of(model: nn.Module, batch: Batch) -> Tensor:
    """The log-probabilities of all rows of the step, (rows,), with gradients where they are enabled."""
    return _in_step_order(batch, [_forward_logprobs(model, batch, forward) for forward in batch["forwards"]])


def _forward_logprobs(model: nn.Module, batch: Batch, forward: SharedForward) -> Tensor:
    with under(model, batch["preference"][forward["step_rows"]]):
        return sequence_logprobs(model, forward)


def _in_step_order(batch: Batch, found: list[Tensor]) -> Tensor:
    """(rows,) from each forward's rows."""
    rows = torch.cat([forward["step_rows"] for forward in batch["forwards"]])
    return torch.cat(found).index_select(0, rows.argsort())
