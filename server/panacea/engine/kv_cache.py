"""The tensors of the paged KV cache, and the view of them that one step uses."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from panacea.errors import CheckpointError, first_line
from panacea.model.attention_interface import STEP_ATTENTION
from panacea.model.loader import LoadedModel
from panacea_kernels import PagedLayout, paged_attention, store


@dataclass(frozen=True)
class LayerShape:
    """Sizes of one layer's keys and values."""

    kv_heads: int
    k_dim: int
    v_dim: int


class KVCache:
    """Keys and values of every layer, in blocks.

    It starts as zeros, because kernels read padding and weight it with zero. There is one block more than asked for:
    the rows that pad the batch of a CUDA graph write into `scratch_block`.
    """

    def __init__(
        self, shapes: Sequence[LayerShape], num_blocks: int, block_size: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.block_size = block_size
        self.scratch_block = num_blocks
        self.layers = [
            (
                torch.zeros(num_blocks + 1, block_size, shape.kv_heads, shape.k_dim, device=device, dtype=dtype),
                torch.zeros(num_blocks + 1, block_size, shape.kv_heads, shape.v_dim, device=device, dtype=dtype),
            )
            for shape in shapes
        ]

    def step(self, layout: PagedLayout) -> "CachedAttention":
        """The view of the cache for a step with this layout."""
        return CachedAttention(self.layers, layout)


@dataclass(frozen=True)
class CachedAttention:
    """One step's view of the cache (a `Cache`), and its attention (a `StepAttention`)."""

    layers: Sequence[tuple[torch.Tensor, torch.Tensor]]
    layout: PagedLayout

    def attend(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        scaling: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        k_cache, v_cache = self.layers[layer]
        store(k, v, k_cache, v_cache, self.layout)
        return paged_attention(q, k_cache, v_cache, self.layout, scaling, sliding_window, softcap)


class _Probe:
    """Replaces the attention in one forward, and records each layer's shapes and sliding window."""

    def __init__(self) -> None:
        self.shapes: dict[int, LayerShape] = {}
        self.windows: dict[int, int | None] = {}

    def attend(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        scaling: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        if layer in self.shapes:
            raise CheckpointError(f"this model is not supported: layer {layer} computes attention twice in one forward")
        self.windows[layer] = sliding_window
        self.shapes[layer] = LayerShape(k.shape[1], k.shape[2], v.shape[2])
        return q.new_zeros(q.shape[0], q.shape[1], v.shape[2])


def probe_layers(model: LoadedModel) -> list[LayerShape]:
    """The shapes of every layer's keys and values, found by one forward of three tokens that samples one.

    Raises `CheckpointError` in these cases: a layer keeps its state elsewhere (Mamba, linear attention, ...), or
    computes attention with its own code; the model passes the attention an argument that changes its result and is not
    implemented; a layer does not pass its sliding window; an adapted layer does not get every token.
    """
    probe, name = _Probe(), type(model.network).__name__
    model.steering.slots = torch.zeros(3, dtype=torch.int32, device=model.device)
    tokens = torch.arange(3, device=model.device)[None]
    try:
        with torch.inference_mode():
            model.network(
                input_ids=tokens,
                position_ids=tokens,
                use_cache=False,
                logits_to_keep=tokens[0, 2:],
                **{STEP_ATTENTION: probe},
            )
    except (CheckpointError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a family's own code may raise anything
        raise CheckpointError(
            f"{name} is not supported: it fails with the engine's attention ({type(error).__name__}: "
            f"{first_line(error)[:200]})"
        ) from error
    layers = range(model.num_layers)
    found = sorted(probe.shapes)
    if not found:
        raise CheckpointError(f"{name} is not supported: it computes attention with code of its own")
    if found != list(layers):
        raise CheckpointError(
            f"{name} is not supported: {len(found)} of its {len(layers)} layers use the attention interface; a hybrid "
            "keeps state outside the KV cache, and a decoder with cross-attention needs an encoder"
        )
    kinds = getattr(model.network.config.get_text_config(decoder=True), "layer_types", None) or []
    for layer, kind in enumerate(kinds):
        if kind == "sliding_attention" and probe.windows.get(layer) is None:
            raise CheckpointError(f"{name} is not supported: layer {layer} does not pass its sliding window on")
    return [probe.shapes[layer] for layer in layers]


def block_bytes(shapes: Sequence[LayerShape], block_size: int, dtype: torch.dtype) -> int:
    """Size in bytes of one block over all layers."""
    return block_size * dtype.itemsize * sum(shape.kv_heads * (shape.k_dim + shape.v_dim) for shape in shapes)
