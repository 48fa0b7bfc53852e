"""The steered linear layer in plain torch."""

import torch
import torch.nn.functional as F


def steered_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    table: torch.Tensor,
    slots: torch.Tensor,
    bias: torch.Tensor | None = None,
    sections: tuple[int, ...] | None = None,
) -> torch.Tensor:
    """A linear layer whose low-rank part is scaled by each row's own preference (Panacea, arXiv 2402.02030, eq. 4).

        y = x weight^T + bias + ((x a^T) * table[slots]) b^T

    Shapes and dtypes (one floating dtype for all but table and slots):
        x (n, in), weight (out, in), bias (out,) or None
        a (g * r, in), b (out, r); b carries the learned singular values and the adapter's scaling
        table (number of slots, r) float32: one row of column weights per slot; a zero row is exactly the base layer
        slots (n,) integer: the slot of each row of x
        sections: None (g = 1), or the g row counts that sum to out. Section i of the output uses its own r rows of a.
        This fuses projections that read the same input into one weight.
    Returns y (n, out).
    """
    rank = b.shape[1]
    y = F.linear(x, weight, bias)
    h = F.linear(x, a).view(x.shape[0], a.shape[0] // rank, rank)
    h = (h * table.index_select(0, slots).unsqueeze(1)).to(x.dtype)
    start = 0
    for section, size in enumerate(sections or (weight.shape[0],)):
        end = start + size
        y[:, start:end].addmm_(h[:, section], b[start:end].t())
        start = end
    return y
