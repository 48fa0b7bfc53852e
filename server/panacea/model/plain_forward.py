"""transformers' own forward of a loaded model, on the weights that the engine uses. It is the oracle of the proof."""

import re
from collections.abc import Generator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from panacea.errors import CheckpointError
from panacea.model.attention_interface import ATTENTION
from panacea.model.steered_linear import FusedPart, SteeredLinear

PLAIN_ATTENTION = "eager"
"""transformers' own attention in plain torch. It needs no cache and every family has it."""


class PlainForward:
    """A network whose layers and attention are, for a while, transformers' own. It shares
    their weights.

    `column_weights` (r,) float32 is the adapter's row of the preference table. Zeros are the bare base.
    """

    def __init__(self, network: PreTrainedModel, column_weights: torch.Tensor) -> None:
        self._network = network
        self._layers: dict[str, _PlainLinear] = {}
        inner: set[SteeredLinear | None] = set()
        for name, module in network.named_modules():  # a parent comes before its children
            if isinstance(module, FusedPart | SteeredLinear) and module not in inner:
                self._layers[name] = _PlainLinear(module, column_weights)
                inner.add(module.linear if isinstance(module, FusedPart) else None)

    @torch.inference_mode()
    def logits(self, token_ids: torch.Tensor, last: int) -> torch.Tensor:
        """token_ids (tokens,) -> logits (last, vocabulary) float32 of the `last` tokens, without any cache.

        Raises `CheckpointError` if an adapted layer takes no part in the forward: its adapter would have no effect.
        Layers for images take no part in a text, so all layers of a stack may be left out.
        """
        with _in_place(self._network, self._layers):
            output = self._network(input_ids=token_ids[None], use_cache=False, logits_to_keep=last)
        called = {_stack(name) for name, layer in self._layers.items() if layer.was_called}
        for name, layer in self._layers.items():
            if layer.adapted and not layer.was_called and _stack(name) in called:
                raise CheckpointError(f"the adapter has no effect on {name}: the model does not call this layer")
        logits: torch.Tensor = output.logits[0, -last:]  # some families ignore `logits_to_keep`
        return logits.float()


def _stack(name: str) -> str:
    """What the layers of one stack have in common: `model.layers` for `model.layers.3.self_attn.q_proj`."""
    return re.sub(r"\.\d+\..*", "", name)


class _PlainLinear(nn.Module):
    """W x + bias + B diag(w) A x in plain torch, for a steered layer or one section of several that are fused."""

    def __init__(self, module: FusedPart | SteeredLinear, column_weights: torch.Tensor) -> None:
        super().__init__()
        rows = slice(None)
        linear = module if isinstance(module, SteeredLinear) else module.group.linear
        a: torch.Tensor = linear.a.detach()
        if isinstance(module, FusedPart):
            start = sum(linear.sections[: module.index])
            rows = slice(start, start + linear.sections[module.index])
            rank = len(a) // len(linear.sections)
            a = a[module.index * rank : (module.index + 1) * rank]
        self.weight = nn.Parameter(linear.weight[rows], requires_grad=False)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias[rows], requires_grad=False)
        self.adapted = linear.adapted
        self.was_called = False
        self._low_rank = (a.float(), linear.b[rows].float(), column_weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.was_called = True
        y = F.linear(x, self.weight, self.bias)
        if not self.adapted:
            return y
        a, b, weights = self._low_rank
        return (y + F.linear(F.linear(x.float(), a) * weights, b)).to(y.dtype)


@contextmanager
def _in_place(network: PreTrainedModel, layers: dict[str, _PlainLinear]) -> Generator[None]:
    """Puts `layers` and transformers' attention into the network, and the engine's back afterwards."""
    engines = {name: network.get_submodule(name) for name in layers}
    try:
        network.set_attn_implementation(PLAIN_ATTENTION)
        for name, layer in layers.items():
            network.set_submodule(name, layer)
        yield
    finally:
        for name, module in engines.items():
            network.set_submodule(name, module)
        network.set_attn_implementation(ATTENTION)
