"""Drawing the next token of each row, in plain torch."""

import torch

# SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
GAMMA, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def draw(
    logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, keys: torch.Tensor
) -> torch.Tensor:
    """One token per row, drawn from softmax(logits / temperature) cut to top-k, then top-p (Gumbel-max).

        argmax over kept tokens of  logits + temperature * g,   g = -log(-log1p(-u)) standard Gumbel noise

    which is greedy at temperature 0. g is a hash of (key, token) alone: no generator with a state, so a row's token
    does not depend on what else is in the batch.
    """
    raise NotImplementedError
