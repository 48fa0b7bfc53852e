"""A tiny model with an adapter that does something, and the same by hand: float64, merged weights, no peft."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from panacea_train.method import PanaceaConfig

VOCABULARY = 50
PEFT_WARNING = "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
"""peft 0.21 asks transformers 5.23 for an attribute that the latter has renamed; nothing here can avoid it."""


def tiny_llama(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """2 layers, hidden 16, grouped heads; float32 random weights larger than usual, so that outputs differ clearly."""
    torch.manual_seed(seed)
    options: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
        "pad_token_id": 0,
    }
    return LlamaForCausalLM(LlamaConfig(**(options | changes)))


def config(**changes: Any) -> PanaceaConfig:
    """2 shared columns and 3 dimensions, scaling 2."""
    options: dict[str, Any] = {
        "task_type": "CAUSAL_LM",
        "shared_columns": 2,
        "scaling": 2.0,
        "preference_dimensions": ["helpful", "harmless", "concise"],
        "default_preference": [0.5, 0.25, 0.25],
    }
    return PanaceaConfig(**(options | changes))


def adapted(base: nn.Module | None = None, *, trained: bool = True, **changes: Any) -> PeftModel:
    """A tiny model with an adapter; `trained`: as if after training, with an effect that is easy to see."""
    model = get_peft_model(base or tiny_llama(), config(**changes))
    if trained:
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_" in name:
                    parameter.normal_(std=0.5)
    return model


def merged_by_hand(
    base: LlamaForCausalLM, adapter: Path, preference: Sequence[float], columns: Sequence[int], scaling: float
) -> LlamaForCausalLM:
    """A float64 copy of `base` with W0 + scaling * B diag(E w) A for weights, all read from the adapter's file."""
    return with_weights(
        base, merged_weights(base, load_file(adapter / "adapter_model.safetensors"), preference, columns, scaling)
    )


def merged_weights(
    base: LlamaForCausalLM,
    tensors: Mapping[str, Tensor],
    preference: Sequence[float],
    columns: Sequence[int],
    scaling: float,
) -> dict[str, Tensor]:
    """All weights of the merged model in float64, differentiable in `tensors`."""
    weights = {name: parameter.detach().double() for name, parameter in base.named_parameters()}
    w = torch.tensor([1.0 if column == -1 else preference[column] for column in columns], dtype=torch.float64)
    prefix = "base_model.model."
    for name in {name.removeprefix(prefix).rpartition(".")[0] for name in tensors}:
        a, b, e = (tensors[f"{prefix}{name}.lora_{part}"].double() for part in "ABE")
        weights[f"{name}.weight"] = weights[f"{name}.weight"] + scaling * b @ torch.diag(e[:, 0] * w) @ a
    return weights


def with_weights(base: LlamaForCausalLM, weights: Mapping[str, Tensor]) -> LlamaForCausalLM:
    model = LlamaForCausalLM(base.config).double()
    model.load_state_dict(dict(weights))
    return model
