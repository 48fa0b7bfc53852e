"""LoRA adapters as peft makes and saves them, with effects that are easy to see."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from tests.golden_files import GOLDEN
from tests.train.tiny import tiny_llama

HELPFUL = GOLDEN / "soup" / "helpful"
CONCISE = GOLDEN / "soup" / "concise"

VARIETY: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"]},
    "all_linear": {"r": 2, "lora_alpha": 5, "target_modules": "all-linear"},
    "rslora": {"r": 9, "lora_alpha": 2, "use_rslora": True, "target_modules": ["down_proj", "o_proj"]},
    "patterns": {
        "r": 3,
        "lora_alpha": 4,
        "target_modules": ["q_proj", "up_proj", "down_proj"],
        "rank_pattern": {"^model.layers.0.self_attn.q_proj": 5, "down_proj": 1, r".*1\.mlp\.up.*": 2},
        "alpha_pattern": {r"layers\.1\.mlp\.up_proj": 7, "q_proj": 1},
        "use_rslora": True,
    },
    "some_layers": {
        "r": 2,
        "lora_alpha": 3,
        "target_modules": ["k_proj", "gate_proj"],
        "layers_to_transform": [1],
        "layers_pattern": "layers",
    },
    "expression": {"r": 1, "lora_alpha": 1, "target_modules": r".*layers\.0\..*(k|gate)_proj"},
    "excluding": {
        "r": 2,
        "lora_alpha": 3,
        "target_modules": ["q_proj", "k_proj"],
        "exclude_modules": r".*\.0\..*k_proj",
    },
    "gaussian": {"r": 3, "lora_alpha": 2, "target_modules": ["v_proj"], "init_lora_weights": "gaussian"},
    "dropout": {"r": 2, "lora_alpha": 4, "target_modules": ["up_proj"], "lora_dropout": 0.5},
    "sixteen_bits": {"r": 2, "lora_alpha": 3, "target_modules": ["o_proj", "q_proj"]},
}
"""What published LoRA adapters differ in, each of it once."""


def save_lora(folder: Path, base: str, *, model: nn.Module | None = None, seed: int = 0, **config: Any) -> Path:
    """A LoRA adapter of a tiny Llama, saved by peft, that names `base` as its base."""
    torch.manual_seed(seed)
    adapted = get_peft_model(model or tiny_llama(), LoraConfig(task_type="CAUSAL_LM", **config))
    shake(adapted)
    if folder.name == "sixteen_bits":
        adapted.to(torch.bfloat16)
    adapted.peft_config["default"].base_model_name_or_path = base
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def shake(adapted: PeftModel) -> None:
    """Gives every trained tensor of an adapter values, as if after training."""
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.normal_(std=0.4)
