"""Reading an ordinary LoRA adapter as peft saves it. Any adapter beyond W0 + scale * B A is refused."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from panacea.errors import CheckpointError
from panacea.model.adapter import read_parts
from panacea.model.adapter_config import CONFIG_FILE

_TENSOR_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight")

_HARMLESS = {
    "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config", "exclude_modules",
    "fan_in_fan_out", "inference_mode", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha",
    "lora_dropout", "lora_ga_config", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r",
    "rank_pattern", "alpha_pattern", "revision", "runtime_config", "target_modules", "task_type", "use_rslora",
}  # fmt: skip
"""Fields about the training, or fields that are read here. All others must be unset."""

_REASONS = {
    "use_dora": "it is a DoRA adapter, which rescales each row of a weight by its length: not linear in the preference",
    "modules_to_save": "it has whole modules of its own (modules_to_save), which a low-rank change cannot express",
    "lora_bias": "it has biases of its own (lora_bias), which a preference cannot scale",
    "trainable_token_indices": "it has embeddings of its own (trainable_token_indices)",
    "target_parameters": "it adapts parameters outside linear layers (target_parameters)",
    "layer_replication": "it repeats layers of the base model (layer_replication)",
    "alora_invocation_tokens": "it is active only after its invocation tokens (alora_invocation_tokens)",
}
_STARTS_THAT_KEEP_THE_BASE = (True, False, "gaussian", "eva", "orthogonal", "mica")
"""Values of init_lora_weights that leave the base model's weights as they are (peft 0.21)."""


class LoraFactors(NamedTuple):
    """One module's change of the weight: scale * b a."""

    a: torch.Tensor  # (r, in)
    b: torch.Tensor  # (out, r)
    scale: float


@dataclass(frozen=True)
class LoraAdapter:
    """A LoRA adapter on the CPU, in the dtype of its file. Keys of `modules` are dotted names in the base model."""

    folder: Path
    base_model: str
    """As the config names it: a hub id or a path."""
    revision: str
    """Revision of the base model on the hub; "" if the config names none."""
    modules: Mapping[str, LoraFactors]

    @property
    def rank(self) -> int:
        """The largest rank of any module."""
        return max(factors.a.shape[0] for factors in self.modules.values())

    @classmethod
    def read(cls, folder: Path) -> "LoraAdapter":
        """Reads an adapter's folder; only safetensors, never pickle.

        Raises `CheckpointError` for a damaged adapter, and for every kind with an effect beyond scale * B A: DoRA,
        biases, modules_to_save, embeddings, initialisations that change the base model, and unknown fields.
        """
        config = _read_config(folder)
        _check_kind(folder, config)
        parts = read_parts(
            folder, _TENSOR_NAME, lambda name: f"{folder} cannot be converted: {_what_it_is(name)} ({name})"
        )
        modules: dict[str, LoraFactors] = {}
        for module, tensors in parts.items():
            if reason := _left_out(config, module):
                raise CheckpointError(f"{folder} has tensors for {module}, {reason}: peft would ignore them")
            modules[module] = _factors(folder, config, module, tensors)
        base, revision = (str(config.get(field) or "") for field in ("base_model_name_or_path", "revision"))
        return cls(folder, base, revision, modules)


def lora_output(factors: LoraFactors, x: torch.Tensor) -> torch.Tensor:
    """scale * (x A^T) B^T in x's dtype and on its device: (..., in) -> (..., out)."""
    a, b, scale = factors
    return scale * F.linear(F.linear(x, a.to(x)), b.to(x))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not an adapter: {CONFIG_FILE} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return config


def _check_kind(folder: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"{folder} cannot be converted: its peft_type is {kind!r}, not 'LORA'")
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise CheckpointError(f"{folder} cannot be converted: its task_type is {config['task_type']!r}")
    if config.get("bias", "none") != "none":
        raise CheckpointError(
            f"{folder} cannot be converted: it trained biases of the base model (bias={config['bias']!r})"
        )
    start = config.get("init_lora_weights", True)
    if start not in _STARTS_THAT_KEEP_THE_BASE:
        raise CheckpointError(
            f"{folder} cannot be converted: its initialisation (init_lora_weights={start!r}) changed the base model's "
            "weights; peft's save_pretrained with path_initial_model_for_weight_conversion makes it an ordinary LoRA "
            "adapter"
        )
    for field, value in config.items():
        if field in _HARMLESS or field in ("bias", "init_lora_weights") or not value:
            continue
        reason = _REASONS.get(field, f"it uses {field}, which is not plain LoRA")
        raise CheckpointError(f"{folder} cannot be converted: {reason}")


def _what_it_is(name: str) -> str:
    """Why a tensor of this name is not part of a plain LoRA adapter."""
    if "lora_magnitude_vector" in name:
        return _REASONS["use_dora"]
    if "lora_embedding" in name:
        return "it adapts an embedding, whose low-rank change is looked up, not multiplied"
    if name.endswith("bias"):
        return "it has biases of its own"
    if ".lora_" not in name:
        return "it has a whole tensor of its own"
    return "it has a tensor that is not plain LoRA"


def _factors(folder: Path, config: Mapping[str, Any], module: str, tensors: Mapping[str, torch.Tensor]) -> LoraFactors:
    if missing := [part for part in "AB" if part not in tensors]:
        raise CheckpointError(f"{folder}: {module} has no lora_{missing[0]}")
    a, b = tensors["A"], tensors["B"]
    for part, tensor in (("A", a), ("B", b)):
        if tensor.dim() != 2 or not tensor.is_floating_point():
            raise CheckpointError(
                f"{folder}: {module}.lora_{part} is {tuple(tensor.shape)} {tensor.dtype}, no matrix of floats: "
                "only linear layers can be converted"
            )
        if not bool(torch.isfinite(tensor.float()).all()):
            raise CheckpointError(f"{folder}: {module}.lora_{part} has values that are not finite")
    rank = _number(folder, config, "r", "rank_pattern", module)
    alpha = _number(folder, config, "lora_alpha", "alpha_pattern", module)
    if not a.shape[0] == b.shape[1] == rank:
        raise CheckpointError(
            f"{folder}: {module} has rank {rank:g} in {CONFIG_FILE}, but {a.shape[0]} rows of A and {b.shape[1]} "
            "columns of B"
        )
    return LoraFactors(a, b, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _number(folder: Path, config: Mapping[str, Any], field: str, pattern_field: str, module: str) -> float:
    """The rank or alpha of `module`, from the first pattern that matches its name (peft's rule), else the default."""
    value: object = config.get(field, 8)  # peft's default for both
    patterns = config.get(pattern_field) or {}
    try:
        for pattern, special in patterns.items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                value = special
                break
    except (AttributeError, re.error):
        raise CheckpointError(f"{folder}: {pattern_field} is not an object of name patterns") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CheckpointError(f"{folder}: {field} of {module} is not a number")
    if field == "r" and value < 1:
        raise CheckpointError(f"{folder}: r of {module} is {value}, but a rank is at least 1")
    return value


def _left_out(config: Mapping[str, Any], module: str) -> str | None:
    """The reason why peft would not adapt `module` with this config, or None."""
    targets = config.get("target_modules")
    if targets and targets != "all-linear" and not _named(targets, module):
        return "which is not in its target_modules"
    if (excluded := config.get("exclude_modules")) and _named(excluded, module):
        return "which is in its exclude_modules"
    layers = config.get("layers_to_transform")
    if layers is not None and layers != [] and isinstance(targets, list) and module not in targets:
        patterns = config.get("layers_pattern") or [r"[^.]*"]
        patterns = [patterns] if isinstance(patterns, str) else patterns
        found = (re.match(rf"(?:^|.*?\.){pattern}\.(?P<index>\d+)\.", module) for pattern in patterns)
        match = next((match for match in found if match), None)
        if match is None or int(match["index"]) not in (layers if isinstance(layers, list) else [layers]):
            return "which is not in its layers_to_transform"
    return None


def _named(names: str | list[str], module: str) -> bool:
    """Whether `names`, a regular expression for whole names or a list of names' last parts, match `module`."""
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith("." + name) for name in names)
