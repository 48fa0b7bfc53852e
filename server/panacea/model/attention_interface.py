"""Connects transformers' models of any family to the engine's paged attention.

A model loaded with `attn_implementation=ATTENTION` calls `_attention_forward` in every layer. The engine passes the
step's attention to the model's forward as a keyword argument, which transformers hands on. There is no global state.
"""

from typing import Any, Protocol

import torch
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from panacea.errors import CheckpointError

ATTENTION = "panacea"
STEP_ATTENTION = "panacea_attention"
"""Name of the forward's keyword argument that carries a `StepAttention`."""

# Keyword arguments of layers that may be ignored, because the engine handles masks and positions itself.
_HARMLESS = {"position_ids", "position_embeddings", "use_cache", "cache_position", "logits_to_keep"}


_MEANINGS = {"s_aux": "sinks (s_aux)"}
"""What an argument that is not implemented stands for."""


class StepAttention(Protocol):
    """Computes the attention of every layer during one step."""

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
        """q (rows, heads, dim), k and v (rows, kv_heads, dim) -> (rows, heads, dim)."""
        ...


def register_attention() -> None:
    """Registers `attn_implementation=ATTENTION` with transformers. It may be called more than once."""
    AttentionInterface.register(ATTENTION, _attention_forward)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, _no_mask)


def _no_mask(*_args: object, **_kwargs: object) -> None:
    """No mask is needed, because the engine's attention is causal within each sequence."""


def _attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: q (1, heads, rows, dim), k and v (1, kv_heads, rows, dim)."""
    step: StepAttention | None = kwargs.pop(STEP_ATTENTION, None)
    sliding_window: int | None = kwargs.pop("sliding_window", None)
    softcap: float | None = kwargs.pop("softcap", None)
    if kwargs.pop("is_causal", None) is False:
        raise CheckpointError(f"{type(module).__name__} is not supported: it is not causal")
    # Arguments that are None or False request nothing (output_attentions, output_router_logits, ...).
    unknown = [
        name for name, value in kwargs.items() if name not in _HARMLESS and value is not None and value is not False
    ]
    if step is None or unknown or attention_mask is not None or dropout:
        if unknown:
            reason = f"needs {_MEANINGS.get(unknown[0], repr(unknown[0]))} in its attention"
        elif step is None:
            reason = "does not pass the engine's arguments on to its attention"
        else:
            reason = "builds a mask of its own for its attention" if attention_mask is not None else "uses dropout"
        raise CheckpointError(f"{type(module).__name__} is not supported: it {reason}")
    layer: int = module.layer_idx  # type: ignore[assignment]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    return step.attend(layer, q, k, v, scale, sliding_window, softcap)[None], None
