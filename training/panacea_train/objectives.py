"""What is minimised, as pure functions of log-probabilities.

Every dimension i has a loss L_i of its own; a preference says how they are one (arXiv 2402.02030, where objectives are
maximised, J_i = -L_i):

    linear scalarisation    sum_i preference_i L_i
    weighted Tchebycheff    max_i preference_i (L_i - z_i)      z: the ideal point, a lower bound of each loss

Linear scalarisation reaches the convex parts of a Pareto front only; Tchebycheff reaches all of it (K. Miettinen,
"Nonlinear Multiobjective Optimization", 1999, section 3.4), at the price of learning from one dimension at a time. Each
L_i is a mean over examples, and a maximum of means is no mean of maxima: with Tchebycheff a whole forward shares one
preference. Linear scalarisation is a mean either way, so each example can have its own.

The paper's third objective is not here: RLHF, where answers are sampled from the model under a preference and PPO
maximises their rewards. It needs sampling between steps, a reward model and a value head for each dimension. What comes
close is to sample answers once, score them, and learn from the scores (`Candidates`, or pairs made of them).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def answer_logprobs(logits: Tensor, targets: Tensor, rows: Tensor, count: int) -> Tensor:
    """log p(answer | prompt) of each sequence: the sum of its answer tokens' log-probabilities.

    logits (tokens, vocabulary), targets (tokens,) int64 and rows (tokens,) int64 cover the answers' tokens of all
    sequences; rows[t] < count says to which one token t belongs. Returns (count,) float32.
    """
    token_logprobs = -F.cross_entropy(logits.float(), targets, reduction="none")
    return token_logprobs.new_zeros(count).index_add(0, rows, token_logprobs)


def sft_loss(logprobs: Tensor, lengths: Tensor, weights: Tensor) -> Tensor:
    """Weighted negative log-likelihood per token: -sum_e w_e logprobs_e / sum_e w_e lengths_e; a scalar.

    logprobs (n,) as from `answer_logprobs`, lengths (n,) the numbers of answer tokens, weights (n,) not negative. With
    equal weights this is the usual mean cross-entropy over all answer tokens. Linear scalarisation over targets y_i for
    each dimension is w_i = preference_i. 0 when all weights are.
    """
    total = (weights * lengths).sum()
    return -(weights * logprobs).sum() / torch.where(total > 0, total, 1)


def scalarised_targets(probabilities: Tensor, preference: Tensor) -> Tensor:
    """sum_i preference_i p_i: (n, m), (n, m) -> (n,).

    p_i is the probability that answer a is better than b on dimension i (0 or 1 for hard labels, 0.5 for a tie). Binary
    cross-entropy is linear in its target, so with z = beta * margin the scalarised DPO objective
    sum_i preference_i BCE(z, p_i) equals BCE(z, sum_i preference_i p_i): one pair needs one loss, not m.

    Where nobody labelled dimension i, p_i is not a number; then the sum is over the others and divided by their
    weights, which `labelled_weights` gives back. 0.5 where no weight is left.
    """
    weights = labelled_weights(probabilities, preference)
    total = (preference * probabilities.nan_to_num(0.0)).sum(dim=-1)
    is_complete = ~probabilities.isnan().any(dim=-1)
    return torch.where(is_complete, total, torch.where(weights > 0, total / weights.clamp_min(1e-12), 0.5))


def labelled_weights(probabilities: Tensor, preference: Tensor) -> Tensor:
    """How much of each preference is on dimensions that the pair is labelled for: (n, m), (n, m) -> (n,); 1 for all."""
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
    """`dpo_loss` of each dimension on the pairs labelled for it, (m,); not a number for a dimension without any.

    policy and reference (n, 2), probabilities (n, m) with NaN where nobody labelled the pair.
    """
    is_labelled = ~probabilities.isnan()
    margins = dpo_margins(policy, reference, beta)[:, None].expand_as(probabilities)
    losses = F.binary_cross_entropy_with_logits(margins, probabilities.nan_to_num(0.5), reduction="none")
    return _means((losses * is_labelled).sum(dim=0), is_labelled.sum(dim=0))


def sft_losses_by_dimension(logprobs: Tensor, lengths: Tensor, weights: Tensor) -> Tensor:
    """`sft_loss` with each column of `weights` (n, m), (m,); not a number for a dimension with no weight at all."""
    return _means(-(weights * logprobs[:, None]).sum(dim=0), (weights * lengths[:, None]).sum(dim=0))


def tchebycheff(losses: Tensor, preference: Tensor, ideal: Tensor) -> Tensor:
    """max_i preference_i (losses_i - ideal_i), each of them (m,); a scalar.

    Over dimensions with weight and a loss that is a number; 0 if there are none. `ideal` is the losses' lower bound: 0
    is one for both objectives. A dimension whose loss cannot come near 0 (the entropy of what is said freely) rules
    every maximum unless its ideal says so.
    """
    takes_part = (preference > 0) & ~losses.isnan()
    # NaN is replaced before it is multiplied: the gradient of a product with NaN is NaN, chosen or not.
    terms = torch.where(takes_part, preference * (losses.nan_to_num(0.0) - ideal), -torch.inf)
    return torch.where(takes_part.any(), terms.max(), 0.0)


def _means(sums: Tensor, counts: Tensor) -> Tensor:
    """sums / counts; not a number where there is nothing to count, and no such gradient either."""
    return (sums / torch.where(counts > 0, counts, 1)).masked_fill(counts == 0, torch.nan)


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum()
    return (values * weights).sum() / torch.where(total > 0, total, 1)


def preferred_weights(targets: Tensor) -> Tensor:
    """Weights (n, 2) that select each pair's better answer for `sft_loss`; both halves of a tie. targets (n,) as above.

    DPO alone may lower the likelihood of both answers as long as the gap grows, and its text collapses; a little
    negative log-likelihood of the preferred answer prevents it (arXiv 2404.19733, equation 1).
    """
    a = torch.where(targets > 0.5, 1.0, torch.where(targets < 0.5, 0.0, 0.5))
    return torch.stack((a, 1 - a), dim=1)
