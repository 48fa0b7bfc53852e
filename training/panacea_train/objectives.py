"""What is minimised, as pure functions of log-probabilities.

Linear scalarisation (arXiv 2402.02030): with one objective L_i for each dimension, a preference's objective is
sum_i preference_i L_i.
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
    """
    return (preference * probabilities).sum(dim=-1)


def dpo_loss(policy: Tensor, reference: Tensor, targets: Tensor, beta: float) -> Tensor:
    """Direct preference optimisation with soft labels, mean over pairs; a scalar.

        z = beta * ((log pi(a) - log ref(a)) - (log pi(b) - log ref(b)))
        loss = -t log sigmoid(z) - (1 - t) log sigmoid(-z)

    policy (n, 2) and reference (n, 2): log-probabilities of answers a and b; targets (n,): the probability t that a is
    better. t = 1 is DPO (arXiv 2305.18290, equation 7); t in between is conservative DPO (E. Mitchell, "A note on DPO
    with noisy preferences", 2023), whose minimum is at sigmoid(z) = t, so a tie pulls the margin to 0.
    """
    log_ratios = policy - reference
    return F.binary_cross_entropy_with_logits(beta * (log_ratios[:, 0] - log_ratios[:, 1]), targets)


def preferred_weights(targets: Tensor) -> Tensor:
    """Weights (n, 2) that select each pair's better answer for `sft_loss`; both halves of a tie. targets (n,) as above.

    DPO alone may lower the likelihood of both answers as long as the gap grows, and its text collapses; a little
    negative log-likelihood of the preferred answer prevents it (arXiv 2404.19733, equation 1).
    """
    a = torch.where(targets > 0.5, 1.0, torch.where(targets < 0.5, 0.0, 0.5))
    return torch.stack((a, 1 - a), dim=1)
