"""Loads a base model with its adapter, and prepares them for the engine's steps."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from panacea.config import EngineConfig
from panacea.errors import CheckpointError, ConfigError, first_line
from panacea.model.adapter import Adapter, LowRank
from panacea.model.attention_interface import ATTENTION, register_attention
from panacea.model.base_config import read_base_config
from panacea.model.context_length import context_length
from panacea.model.decoders import FAMILIES, Decoder, FusedDecoder, TransformersDecoder
from panacea.model.end_tokens import end_token_ids
from panacea.model.folder_format import check_model_folder
from panacea.model.identity import base_identity
from panacea.model.steered_linear import FusedPart, FusedProjections, PreferenceTable, SteeredLinear
from panacea.model.stored_tensors import check_stored_tensors
from panacea_kernels import MAX_RANK

logger = logging.getLogger(__name__)

FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers of one parent module that read the same input, in the order in which the models call them."""

LEAST_CAPABILITY = (8, 0)
"""The minimum compute capability of a GPU: Ampere's, the first with bfloat16."""

# A step of a model below this size is many tiny operations. Splitting them over threads costs more than it saves.
ONE_THREAD_PARAMETERS = 20_000_000


@dataclass(frozen=True)
class LoadedModel:
    """A transformers model whose adapted layers read `steering`."""

    network: PreTrainedModel
    decoder: Decoder
    """Runs the network's steps."""
    base_identity: bytes
    """The digest of this base, for prefix-cache keys."""
    adapter: Adapter | None
    steering: PreferenceTable
    context_length: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    num_layers: int
    device: torch.device
    dtype: torch.dtype

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())


def load_model(config: EngineConfig) -> LoadedModel:
    """Loads base and adapter from local folders.

    The base may be any causal LM of transformers with Linear projections that uses the attention interface. Raises
    `CheckpointError` that names the file, tensor or setting at fault. Raises `ConfigError` if the GPU's memory is too
    small.
    """
    device = choose_device(config)
    check_model_folder(config.model)
    base_config = read_base_config(config.model)
    check_stored_tensors(config.model)
    adapter = None if config.adapter is None else Adapter.read(config.adapter)
    dtype = choose_dtype(config, base_config.dtype, device)
    network = _load_network(config.model, base_config, dtype, device)
    text_config = base_config.get_text_config(decoder=True)
    named: int | list[int] | None = getattr(text_config, "eos_token_id", None)
    eos_token_ids = end_token_ids(config.model, named, text_config.vocab_size)
    return assemble(network, adapter, config, eos_token_ids, base_identity(config.model, str(dtype)), config.model)


def assemble(
    network: PreTrainedModel,
    adapter: Adapter | None,
    config: EngineConfig,
    eos_token_ids: tuple[int, ...],
    identity: bytes = b"",
    folder: Path | None = None,
) -> LoadedModel:
    """Prepares a network with attention `ATTENTION` for steps: fuses its projections and inserts the adapter.

    `identity` is the digest of the base. It may be empty for a network that was not read from a folder, because a
    process has only one base. The tokenizer's config in `folder` may limit the context. Raises `CheckpointError` if
    adapter or settings do not fit the network.
    """
    device = network.device
    text_config = network.config.get_text_config(decoder=True)
    limit = context_length(text_config.to_dict(), folder, config.max_context)
    steering = PreferenceTable(config.max_batch + 1, adapter.config.rank if adapter else 1, device)
    _steer(network, adapter, steering)
    if adapter is not None:
        _warn_of_rank(adapter.config.rank, device)
    decoder: Decoder = TransformersDecoder(network)
    if FusedDecoder.fits(network):
        decoder = FusedDecoder(network, limit)
    elif config.deterministic:
        raise CheckpointError(
            f"deterministic supports only {', '.join(FAMILIES)}, not {type(network).__name__}: leave it off"
        )
    elif device.type == "cuda":
        logger.warning(
            "%s runs with transformers' own layers, which are slower; only %s have a fused forward",
            type(network).__name__,
            ", ".join(FAMILIES),
        )
    if device.type == "cpu":
        parameters = sum(parameter.numel() for parameter in network.parameters())
        torch.set_num_threads(config.threads or (1 if parameters < ONE_THREAD_PARAMETERS else _cores()))
    return LoadedModel(
        network=network,
        decoder=decoder,
        base_identity=identity,
        adapter=adapter,
        steering=steering,
        context_length=limit,
        vocab_size=text_config.vocab_size,
        eos_token_ids=eos_token_ids,
        num_layers=text_config.num_hidden_layers,
        device=device,
        dtype=next(network.parameters()).dtype,
    )


def _warn_of_rank(rank: int, device: torch.device) -> None:
    """Warns if a GPU runs the reference path because the rank exceeds the kernels'."""
    if device.type == "cuda" and rank > MAX_RANK:
        logger.warning(
            "the adapter has %d columns, more than the kernels' %d: its layers run the slower reference path",
            rank,
            MAX_RANK,
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_device(config: EngineConfig) -> torch.device:
    """The device that `config` selects. Raises `CheckpointError` if it is cuda and no usable GPU exists."""
    if config.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        lack = "torch finds no CUDA device"
    elif torch.cuda.get_device_capability() < LEAST_CAPABILITY:
        major, minor = torch.cuda.get_device_capability()
        least = ".".join(map(str, LEAST_CAPABILITY))
        lack = f"the {torch.cuda.get_device_name()} has compute capability {major}.{minor}, below the minimum {least}"
    else:
        return torch.device("cuda")
    if config.device == "cuda":
        raise CheckpointError(f"device is cuda, but {lack}; choose cpu or auto")
    if torch.cuda.is_available():
        logger.warning("%s: running on the CPU instead", lack)
    return torch.device("cpu")


def choose_dtype(config: EngineConfig, stored: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """The dtype that `config` selects. "auto" is float32 on a CPU.

    On CUDA "auto" is float16 for a float16 checkpoint, else bfloat16.
    """
    if config.dtype != "auto":
        dtype: torch.dtype = getattr(torch, config.dtype)
        return dtype
    if device.type == "cpu":
        return torch.float32
    return torch.float16 if stored == torch.float16 else torch.bfloat16


def _load_network(
    folder: Path, base_config: PreTrainedConfig, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    register_attention()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=base_config,
            dtype=dtype,
            attn_implementation=ATTENTION,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # a family's own code may raise anything
        if isinstance(error, KeyError) and error.args == (ATTENTION,):
            problem = f"is not supported: {base_config.model_type} computes attention with code of its own"
        else:
            problem = f"cannot be loaded: {first_line(error)}"
        raise CheckpointError(f"{folder} {problem}") from None
    network: PreTrainedModel
    report: dict[str, set[str]]
    network, report = loaded
    if report["missing_keys"]:
        raise CheckpointError(f"{folder}: the tensor {min(report['missing_keys'])} is missing")
    if report["unexpected_keys"]:
        unused = sorted(report["unexpected_keys"])
        logger.warning("%s has %d tensors that the model does not use, such as %s", folder, len(unused), unused[0])
    network.train(mode=False)
    network.requires_grad_(requires_grad=False)
    try:
        network.to(device)  # type: ignore[arg-type]  # transformers wraps `to` without its types
    except torch.OutOfMemoryError:
        raise ConfigError(_too_large(network, device)) from None
    return network


def _too_large(network: PreTrainedModel, device: torch.device) -> str:
    needed = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    free, total = torch.cuda.mem_get_info(device)
    return (
        f"the model's weights take {needed / 2**30:.1f} GiB in {network.dtype}, but only {free / 2**30:.1f} GiB of the "
        f"GPU's {total / 2**30:.1f} GiB are free: choose a smaller dtype or model, or free GPU memory"
    )


def _steer(network: PreTrainedModel, adapter: Adapter | None, steering: PreferenceTable) -> None:
    """Replaces adapted layers by steered ones, and fuses layers that read the same input.

    Raises `CheckpointError` for a tensor that matches no module, a target module without tensors, or a wrong shape.
    """
    linears = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    low_rank: dict[str, LowRank] = {}
    if adapter is not None:
        low_rank = dict(adapter.modules)
        _check_match(network, linears, adapter)
    for names in list(_groups(linears)):
        layers = [linears.pop(name) for name in names]  # so that each replaced layer is freed at once
        parts = [low_rank.get(name) for name in names]
        if len(layers) == 1 and parts[0] is None:
            continue
        linear = SteeredLinear(layers, parts, steering, adapter.config.scaling if adapter else 1.0)
        if len(layers) == 1:
            network.set_submodule(names[0], linear)
            continue
        group = FusedProjections(linear)
        for index, name in enumerate(names):
            network.set_submodule(name, FusedPart(group, index))


def _groups(linears: dict[str, nn.Linear]) -> Iterator[tuple[str, ...]]:
    """The names of all linear layers, grouped by fusion. A layer that is not fused is a group of its own."""
    fused: set[str] = set()
    for name in linears:
        parent, _, last = name.rpartition(".")
        for group in FUSED:
            names = tuple(f"{parent}.{member}" for member in group)
            layers = [linears[member] for member in names if member in linears]
            if last == group[0] and len(layers) == len(names) and len({layer.in_features for layer in layers}) == 1:
                fused.update(names)
                yield names
    yield from ((name,) for name in linears if name not in fused)


def _check_match(network: PreTrainedModel, linears: dict[str, nn.Linear], adapter: Adapter) -> None:
    config = adapter.config
    for name, (a, b, _) in adapter.modules.items():
        if name not in linears:
            raise CheckpointError(f"the adapter has tensors for {name}, which is not a linear layer of the base model")
        if not config.targets(name):
            raise CheckpointError(f"the adapter has tensors for {name}, which is not one of its target_modules")
        layer = linears[name]
        if (a.shape[1], b.shape[0]) != (layer.in_features, layer.out_features):
            raise CheckpointError(
                f"the adapter's {name} maps {a.shape[1]} to {b.shape[0]} features, "
                f"the base model's {layer.in_features} to {layer.out_features}"
            )
    for name, module in network.named_modules():
        if config.targets(name) and name not in adapter.modules:
            what = "has no tensors in the adapter" if isinstance(module, nn.Linear) else "is not a linear layer"
            raise CheckpointError(f"target module {name} {what}")
