"""Linear layers steered by the preference of each row, and the preference table that they read."""

from collections.abc import Sequence

import torch
from torch import nn

from panacea.errors import CheckpointError
from panacea.model.adapter import LowRank
from panacea_kernels import linear, steered_linear


class PreferenceTable:
    """The preference table (slots, r) and the slot of each row of the running step. All layers of a model share it.

    Only the engine's runner writes to it. Slot 0 stays zero: it is the bare base.
    """

    def __init__(self, num_slots: int, rank: int, device: torch.device) -> None:
        self.table = torch.zeros(num_slots, rank, dtype=torch.float32, device=device)
        self.slots = torch.zeros(0, dtype=torch.int32, device=device)


class SteeredLinear(nn.Module):
    """One or several linear layers that read the same input, as one weight with one low-rank adapter.

    `low_rank` has one entry per layer. It is None for a layer without adapter. Maps (..., in) to (..., out).
    """

    def __init__(
        self, layers: Sequence[nn.Linear], low_rank: Sequence[LowRank | None], steering: PreferenceTable, scaling: float
    ) -> None:
        super().__init__()
        weight = layers[0].weight
        self.steering = steering
        self.sections = tuple(layer.out_features for layer in layers)
        self.weight = nn.Parameter(_laid_out(_join([layer.weight.detach() for layer in layers])), requires_grad=False)
        self.bias = _join_biases(layers)
        rank = steering.table.shape[1]
        a = [
            torch.zeros(rank, layer.in_features) if part is None else part.a.float()
            for layer, part in zip(layers, low_rank, strict=True)
        ]
        # Multiplied in float32, so that a 16-bit model rounds the product only once.
        b = [
            torch.zeros(layer.out_features, rank) if part is None else part.b.float() * part.e.float() * scaling
            for layer, part in zip(layers, low_rank, strict=True)
        ]
        self.a = nn.Buffer(_laid_out(_join(a).to(weight.device, weight.dtype)), persistent=False)
        joined = _join(b).to(weight.dtype)
        if not bool(torch.isfinite(joined).all()):
            raise CheckpointError(f"the adapter's values times its scaling are too large for {weight.dtype}")
        self.b = nn.Buffer(joined.to(weight.device), persistent=False)
        self.adapted = any(part is not None for part in low_rank)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.adapted:
            return linear(x, self.weight, self.bias)
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) != len(self.steering.slots):
            # An output head that reads only the rows that sample, or an expert that reads only its tokens. The mapping
            # from these rows to preferences is unknown.
            raise CheckpointError(
                f"an adapted layer reads {len(rows)} of a step's {len(self.steering.slots)} rows, so the preference of "
                "each row is unknown: remove this layer from the adapter's target_modules"
            )
        y = steered_linear(
            rows,
            self.weight,
            self.a,
            self.b,
            self.steering.table,
            self.steering.slots,
            self.bias,
            self.sections if len(self.sections) > 1 else None,
        )
        return y.view(*x.shape[:-1], -1)


class FusedProjections:
    """Computes layers that read the same input together, and returns to each its part of the result.

    The model's own code is unchanged: it calls `q_proj(x)`, `k_proj(x)`, `v_proj(x)`, and the first call computes all
    three. A call with another input than the last one computes again, so any order of calls is correct.
    """

    def __init__(self, linear: SteeredLinear) -> None:
        self.linear = linear
        self._input: torch.Tensor | None = None
        self._parts: list[torch.Tensor | None] = []

    def part(self, index: int, x: torch.Tensor) -> torch.Tensor:
        held = self._parts[index] if x is self._input else None
        if held is None:
            self._input = x
            self._parts = list(self.linear(x).split(self.linear.sections, dim=-1))
            held = self._parts[index]
            assert held is not None
        self._parts[index] = None
        if all(part is None for part in self._parts):
            self._input = None  # do not keep activations alive between steps
        return held


class FusedPart(nn.Module):
    """Replaces one of the fused layers in the model."""

    def __init__(self, group: FusedProjections, index: int) -> None:
        super().__init__()
        self.linear = group.linear if index == 0 else None  # one owner: parameters are counted and moved once
        self.group = group
        self.index = index

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.group.part(self.index, x)


def _laid_out(weight: torch.Tensor) -> torch.Tensor:
    """`weight` (out, in) in the memory order that is fastest on its device.

    On a CPU this is column-major: 16 rows times a (576, 192) matrix take 21.5 us instead of 34.6 us, and a step of 16
    rows of a 2.2 M parameter Llama takes 4.9 ms instead of 5.3 ms (one Xeon core).
    """
    return weight.t().contiguous().t() if weight.device.type == "cpu" else weight


def _join(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def _join_biases(layers: Sequence[nn.Linear]) -> nn.Parameter | None:
    """The layers' biases, concatenated. A layer without bias gets zeros. None if no layer has a bias."""
    biases: list[torch.Tensor | None] = [None if layer.bias is None else layer.bias.detach() for layer in layers]  # pyright: ignore[reportUnnecessaryComparison]
    if all(bias is None for bias in biases):
        return None
    whole = [
        layer.weight.new_zeros(layer.out_features) if bias is None else bias
        for layer, bias in zip(layers, biases, strict=True)
    ]
    return nn.Parameter(_join(whole), requires_grad=False)
