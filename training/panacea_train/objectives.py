"""The training objectives, as pure functions of log-probabilities.

Every dimension i has its own loss L_i. A preference combines them (arXiv 2402.02030, where objectives are maximised,
J_i = -L_i):

    linear scalarisation    sum_i preference_i L_i
    weighted Tchebycheff    max_i preference_i (L_i - z_i)      z: the ideal point, a lower bound of each loss

Linear scalarisation reaches only the convex parts of a Pareto front. Tchebycheff reaches all of it (K. Miettinen,
"Nonlinear Multiobjective Optimization", 1999, section 3.4), but learns from one dimension at a time. Each L_i is a mean
over examples, and a maximum of means is not a mean of maxima. So with Tchebycheff a whole step shares one
preference. Linear scalarisation is a mean in both orders, so each example can have its own preference.

The paper's third objective is not implemented: RLHF, where answers are sampled from the model under a preference and
PPO maximises their rewards. It needs sampling between steps, a reward model and a value head for each dimension. An
approximation is to sample answers once, score them, and learn from the scores (`Candidates`, or pairs made of them).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def answer_logprobs(logits: Tensor, targets: Tensor, rows: Tensor, count: int) -> Tensor:
    """log p(answer | prompt) of each sequence: the sum of its answer tokens' log-probabilities.

    logits (tokens, vocabulary), targets (tokens,) int64 and rows (tokens,) int64 cover the answers' tokens of all
    sequences; rows[t] < count says to which one token t belongs. Returns (count,) float32, float64 for float64 logits.
    """
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    token_logprobs = -F.cross_entropy(precise, targets, reduction="none")
    return token_logprobs.new_zeros(count).index_add(0, rows, token_logprobs)


def sft_loss(logprobs: Tensor, lengths: Tensor, weights: Tensor) -> Tensor:
    """Weighted negative log-likelihood per token: -sum_e w_e logprobs_e / sum_e w_e lengths_e; a scalar.

    logprobs (n,) as from `answer_logprobs`, lengths (n,) the numbers of answer tokens, weights (n,) not negative. With
    equal weights this is the usual mean cross-entropy over all answer tokens. w_i = preference_i gives linear
    scalarisation over a target y_i for each dimension. The loss is 0 if all weights are 0.
    """
    total = (weights * lengths).sum()
    return -(weights * logprobs).sum() / torch.where(total > 0, total, 1)


def scalarised_targets(probabilities: Tensor, preference: Tensor) -> Tensor:
    """sum_i preference_i p_i: (n, m), (n, m) -> (n,).

    p_i is the probability that answer a is better than b on dimension i (0 or 1 for hard labels, 0.5 for a tie). Binary
    cross-entropy is linear in its target, so with z = beta * margin the scalarised DPO objective
    sum_i preference_i BCE(z, p_i) equals BCE(z, sum_i preference_i p_i): one pair needs one loss, not m.

    If dimension i is unlabelled, p_i is NaN. Then the sum is over the other dimensions, divided by their weights, which
    `labelled_weights` returns. The result is 0.5 if no weight is left.
    """
    weights = labelled_weights(probabilities, preference)
    total = (preference * probabilities.nan_to_num(0.0)).sum(dim=-1)
    is_complete = ~probabilities.isnan().any(dim=-1)
    return torch.where(is_complete, total, torch.where(weights > 0, total / weights.clamp_min(1e-12), 0.5))


def labelled_weights(probabilities: Tensor, preference: Tensor) -> Tensor:
    """The weight of each preference on the dimensions with a label: (n, m), (n, m) -> (n,); 1 if all have one."""
    is_labelled = ~probabilities.isnan()
    return torch.where(is_labelled.all(dim=-1), 1.0, (preference * is_labelled).sum(dim=-1))


def dpo_loss(policy: Tensor, reference: Tensor, targets: Tensor, beta: float, weights: Tensor | None = None) -> Tensor:
    """Direct preference optimisation with soft labels, mean over pairs with `weights` (n,); a scalar.

        z = beta * ((log pi(a) - log ref(a)) - (log pi(b) - log ref(b)))
        loss = -t log sigmoid(z) - (1 - t) log sigmoid(-z)

    policy (n, 2) and reference (n, 2): log-probabilities of answers a and b; targets (n,): the probability t that a is
    better. t = 1 is DPO (arXiv 2305.18290, equation 7); t in between is conservative DPO (E. Mitchell, "A note on DPO
    with noisy preferences", 2023), whose minimum is at sigmoid(z) = t, so a tie pulls the margin to 0.
    """
    losses = F.binary_cross_entropy_with_logits(dpo_margins(policy, reference, beta), targets, reduction="none")
    return losses.mean() if weights is None else _weighted_mean(losses, weights)


def dpo_margins(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """z of `dpo_loss`: (n, 2), (n, 2) -> (n,)."""
    log_ratios = policy - reference
    return beta * (log_ratios[:, 0] - log_ratios[:, 1])


def dpo_losses_by_dimension(policy: Tensor, reference: Tensor, probabilities: Tensor, beta: float) -> Tensor:
    """`dpo_loss` of each dimension on the pairs labelled for it, (m,); NaN for a dimension without any.

    policy and reference (n, 2), probabilities (n, m) with NaN for dimensions without a label.
    """
    is_labelled = ~probabilities.isnan()
    margins = dpo_margins(policy, reference, beta)[:, None].expand_as(probabilities)
    losses = F.binary_cross_entropy_with_logits(margins, probabilities.nan_to_num(0.5), reduction="none")
    return _means((losses * is_labelled).sum(dim=0), is_labelled.sum(dim=0))


def sft_losses_by_dimension(logprobs: Tensor, lengths: Tensor, weights: Tensor) -> Tensor:
    """`sft_loss` with each column of `weights` (n, m), (m,); NaN for a dimension without weight."""
    return _means(-(weights * logprobs[:, None]).sum(dim=0), (weights * lengths[:, None]).sum(dim=0))


def tchebycheff(losses: Tensor, preference: Tensor, ideal: Tensor) -> Tensor:
    """max_i preference_i (losses_i - ideal_i), each of them (m,); a scalar.

    The maximum is over dimensions with weight and a loss that is not NaN; 0 if there are none. `ideal` is a lower bound
    of the losses: 0 is one for both objectives. A dimension whose loss cannot come near 0 (because of the entropy of
    free text) dominates every maximum unless its ideal accounts for that.
    """
    takes_part = (preference > 0) & ~losses.isnan()
    # NaN is replaced before it is multiplied: the gradient of a product with NaN is NaN, chosen or not.
    terms = torch.where(takes_part, preference * (losses.nan_to_num(0.0) - ideal), -torch.inf)
    return torch.where(takes_part.any(), terms.max(), 0.0)


def _means(sums: Tensor, counts: Tensor) -> Tensor:
    """sums / counts; NaN where a count is 0, but no NaN in the gradient."""
    return (sums / torch.where(counts > 0, counts, 1)).masked_fill(counts == 0, torch.nan)


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum()
    return (values * weights).sum() / torch.where(total > 0, total, 1)


def preferred_weights(targets: Tensor) -> Tensor:
    """Weights (n, 2) that select each pair's better answer for `sft_loss`; both halves of a tie. targets (n,) as above.

    DPO alone may lower the likelihood of both answers as long as the gap grows, until the generated text degenerates. A
    small term of the preferred answer's negative log-likelihood prevents this (arXiv 2404.19733, equation 1).
    """
    a = torch.where(targets > 0.5, 1.0, torch.where(targets < 0.5, 0.0, 0.5))
    return torch.stack((a, 1 - a), dim=1)
