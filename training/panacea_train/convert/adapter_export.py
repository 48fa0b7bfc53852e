"""Export of an adapter at one preference, for programs without preferences: a LoRA adapter, or merged weights.

B' A' = scaling * B diag(E w(preference)) A        A': A's rows of weight above 0, B': the rest of the product
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save
from torch import nn
from transformers import GenerationConfig

from panacea.config import DType
from panacea.errors import CheckpointError
from panacea.model.adapter import WEIGHTS_FILE, Adapter, LowRank
from panacea.model.adapter_config import CONFIG_FILE
from panacea.model.hub import local_folder
from panacea.preference import Preference
from panacea_train.convert.agreement import Agreement, Change, Computing, Logits, compare, served_logits, source_logits
from panacea_train.convert.base_model import as_base, check_fits, copy_beside_weights, linear_layers, load_base
from panacea_train.convert.conversion_stages import stages
from panacea_train.convert.lora import LoraAdapter, LoraFactors, lora_output
from panacea_train.output_folder import new_folder

ExportForm = Literal["lora", "merged"]

SHARD_SIZE = "5GB"
"""Largest file of merged weights, as in the models on the hub."""


@dataclass(frozen=True)
class Export:
    """The dtype that was written, and the result of the check."""

    dtype: str
    agreement: Agreement


def export_adapter(
    folder: Path,
    out: Path,
    form: ExportForm,
    *,
    preference: Preference,
    model: str | None = None,
    dtype: DType = "auto",
    overwrite: bool = False,
    computing: Computing | None = None,
) -> Export:
    """Writes the adapter in `folder` at `preference` to `out`: "lora" writes a peft adapter, "merged" a model.

    `model`: the base, a folder or hub id; None is the adapter's own. `dtype` of the tensors on disk: "auto" is float32
    for LoRA, which keeps the product's digits, and the base's own for merged weights. The result is checked before
    `out` appears: transformers loads it, and its logits are compared with the engine's.

    Raises `CheckpointError` if the adapter cannot be exported or the result differs, `ConfigError` for `out`.
    """
    computing = computing or Computing()
    adapter = Adapter.read(folder)
    base = as_base(model) if model is not None else adapter.config.base_of(folder)
    with new_folder(out, overwrite=overwrite) as new, stages(f"export {form}", 4) as stage:
        stage("base")
        base_folder = local_folder(str(base))
        shapes = {name: (a.shape[1], b.shape[0]) for name, (a, b, _) in adapter.modules.items()}
        check_fits(str(folder), shapes, linear_layers(base_folder))
        stage("writing")
        changes: dict[str, Change] = {}
        if form == "lora":
            written = torch.float32 if dtype == "auto" else _dtype(dtype)
            name = str(base_folder.resolve()) if isinstance(base, Path) else base
            write_lora(adapter, preference, new, name, written)
            changes = {name: _lora_change(factors) for name, factors in LoraAdapter.read(new).modules.items()}
        else:
            written = write_merged(adapter, preference, base_folder, new, None if dtype == "auto" else _dtype(dtype))
        stage("logits after")
        after = source_logits(base_folder if form == "lora" else new, changes, [preference], computing)
        stage("logits before")
        served = served_logits(base_folder, folder, [None, preference], computing)
        bare, before = served.values.chunk(2)
        # Rounding on disk makes a difference, however exactly the check computes.
        coarser = written if written.itemsize < after.dtype.itemsize else after.dtype
        agreement = compare(Logits(before, served.dtype), replace(after, dtype=coarser), bare, 1)
        return Export(str(written).removeprefix("torch."), agreement)


def write_lora(adapter: Adapter, preference: Preference, folder: Path, base: str, dtype: torch.dtype) -> None:
    """Writes an ordinary LoRA adapter in peft's format. alpha is r, so that peft's own factor is 1."""
    weights = torch.tensor(adapter.config.column_weights(preference), dtype=torch.float64)
    columns = weights.nonzero().flatten()
    tensors: dict[str, torch.Tensor] = {}
    for name, (a, b, e) in adapter.modules.items():
        product = b.double() * (adapter.config.scaling * e.double() * weights)
        tensors[f"base_model.model.{name}.lora_A.weight"] = a[columns].to(dtype).contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = product[:, columns].to(dtype).contiguous()
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise CheckpointError(f"the adapter's values overflow in {dtype}: choose another --dtype")
    targets = adapter.config.target_modules
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": len(columns),
        "lora_alpha": len(columns),
        "target_modules": targets if isinstance(targets, str) else list(targets),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    (folder / WEIGHTS_FILE).write_bytes(save(tensors, metadata={"format": "pt"}))


def write_merged(
    adapter: Adapter, preference: Preference, base: Path, folder: Path, dtype: torch.dtype | None
) -> torch.dtype:
    """Writes the base with the adapter merged into its weights, and its other files; returns the weights' dtype.

    Each sum is computed in float64 and rounded once. Tied embeddings stay tied. `dtype` None is the base's own.
    """
    network = load_base(base, "auto", torch.device("cpu"))
    if getattr(network.config, "quantization_config", None) is not None:
        raise CheckpointError(f"{base} is quantised: an adapter cannot be merged into its weights; use --as lora")
    dtype = network.dtype if dtype is None else dtype
    for name, low_rank in adapter.modules.items():
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        merged = layer.weight.double() + delta(low_rank, adapter, preference)
        layer.weight = nn.Parameter(merged.to(dtype), requires_grad=False)
    network.to(dtype)  # type: ignore[arg-type]  # transformers wraps `to` without its types
    # transformers refuses to write some generation configs that it reads, so the file is copied instead.
    network.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    network.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    (folder / "generation_config.json").unlink()
    config = (folder / "config.json").read_bytes()
    copy_beside_weights(base, folder)
    (folder / "config.json").write_bytes(config)  # with the dtype that was written
    for path in folder.glob("*.safetensors"):
        path.chmod((folder / "config.json").stat().st_mode)  # safetensors' are their owner's alone
    return dtype


def delta(low_rank: LowRank, adapter: Adapter, preference: Preference) -> torch.Tensor:
    """scaling * b diag(e w(preference)) a, (out, in) float64."""
    weights = torch.tensor(adapter.config.column_weights(preference), dtype=torch.float64)
    a, b, e = (tensor.double() for tensor in low_rank)
    return (b * (adapter.config.scaling * e * weights)) @ a


def _dtype(name: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _lora_change(factors: LoraFactors) -> Change:
    return lambda x, _preference: lora_output(factors, x)
