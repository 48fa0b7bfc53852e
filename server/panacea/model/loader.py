"""Loading a base model with its adapter, ready for steps."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel

from panacea.config import EngineConfig
from panacea.errors import CheckpointError, ConfigError, first_line
from panacea.model.adapter import Adapter, LowRank
from panacea.model.attention_interface import ATTENTION, register_attention
from panacea.model.decoders import FAMILIES, Decoder, FusedDecoder, TransformersDecoder
from panacea.model.identity import base_identity
from panacea.model.steered_linear import FusedPart, FusedProjections, SteeredLinear, Steering
from panacea_kernels import MAX_RANK

logger = logging.getLogger(__name__)

FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers of one parent module that read the same input, in the order in which the models call them."""

LEAST_CAPABILITY = (8, 0)
"""Of a GPU: Ampere's, the first with bfloat16."""

# Below this size a step is many tiny operations, and handing each to several threads costs more than it saves.
ONE_THREAD_PARAMETERS = 20_000_000


@dataclass(frozen=True)
class LoadedModel:
    """A transformers model whose adapted layers read `steering`."""

    network: PreTrainedModel
    decoder: Decoder
    """Computes the network's steps."""
    base_identity: bytes
    """What tells this base from others."""
    adapter: Adapter | None
    steering: Steering
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

    Any transformers causal LM with Linear projections and attention through the attention interface. Raises
    `CheckpointError` that names the file, tensor or setting at fault.
    """
    device = choose_device(config)
    base_config = _read_config(config.model)
    adapter = None if config.adapter is None else Adapter.read(config.adapter)
    dtype = choose_dtype(config, base_config.dtype, device)
    network = _load_network(config.model, base_config, dtype, device)
    eos_token_ids = _eos_token_ids(config.model, base_config.get_text_config(decoder=True))
    return assemble(network, adapter, config, eos_token_ids, base_identity(config.model, str(dtype)))


def assemble(
    network: PreTrainedModel,
    adapter: Adapter | None,
    config: EngineConfig,
    eos_token_ids: tuple[int, ...],
    identity: bytes = b"",
) -> LoadedModel:
    """Makes a network with attention `ATTENTION` ready for steps: projections fused, adapter in place.

    `identity` tells the base from others; a network that lies in no folder may go without, as it is its process' only.
    Raises `CheckpointError` where adapter or settings do not fit the network.
    """
    device = network.device
    text_config = network.config.get_text_config(decoder=True)
    context_length = _context_length(network.config, config)
    steering = Steering(config.max_batch + 1, adapter.config.rank if adapter else 1, device)
    _steer(network, adapter, steering)
    if adapter is not None:
        _warn_of_rank(adapter.config.rank, device)
    decoder: Decoder = TransformersDecoder(network)
    if FusedDecoder.fits(network):
        decoder = FusedDecoder(network, context_length)
    elif config.deterministic:
        raise CheckpointError(
            f"deterministic needs a model of the families {', '.join(FAMILIES)}, not {type(network).__name__}"
        )
    elif device.type == "cuda":
        logger.warning("%s runs by transformers' own layers, slower than %s", type(network).__name__, FAMILIES)
    if device.type == "cpu":
        parameters = sum(parameter.numel() for parameter in network.parameters())
        torch.set_num_threads(config.threads or (1 if parameters < ONE_THREAD_PARAMETERS else _cores()))
    return LoadedModel(
        network=network,
        decoder=decoder,
        base_identity=identity,
        adapter=adapter,
        steering=steering,
        context_length=context_length,
        vocab_size=text_config.vocab_size,
        eos_token_ids=eos_token_ids,
        num_layers=text_config.num_hidden_layers,
        device=device,
        dtype=next(network.parameters()).dtype,
    )


def _warn_of_rank(rank: int, device: torch.device) -> None:
    """A CPU takes the reference path for every rank; a GPU only where there is no kernel."""
    if device.type == "cuda" and rank > MAX_RANK:
        logger.warning(
            "the adapter has %d columns, the kernels take %d: its layers run by the reference path, slower",
            rank,
            MAX_RANK,
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_device(config: EngineConfig) -> torch.device:
    """The device that `config` asks for. Raises `CheckpointError` if there is none."""
    if config.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        lack = "torch finds no CUDA device"
    elif torch.cuda.get_device_capability() < LEAST_CAPABILITY:
        major, minor = torch.cuda.get_device_capability()
        least = ".".join(map(str, LEAST_CAPABILITY))
        lack = f"the {torch.cuda.get_device_name()} has compute capability {major}.{minor}, and {least} is the least"
    else:
        return torch.device("cuda")
    if config.device == "cuda":
        raise CheckpointError(f"device is cuda, but {lack}")
    if torch.cuda.is_available():
        logger.warning("%s: the CPU computes instead", lack)
    return torch.device("cpu")


def choose_dtype(config: EngineConfig, stored: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """The dtype that `config` asks for; "auto" on CUDA is the checkpoint's own if it has 16 bits, else bfloat16."""
    if config.dtype != "auto":
        dtype: torch.dtype = getattr(torch, config.dtype)
        return dtype
    if device.type == "cpu":
        return torch.float32
    return torch.float16 if stored == torch.float16 else torch.bfloat16


def _read_config(folder: Path) -> PreTrainedConfig:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is no model: it has no config.json")
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (ValueError, OSError, KeyError) as error:
        raise CheckpointError(f"{folder}/config.json cannot be used: {first_line(error)}") from None
    quantization: dict[str, Any] | None = getattr(config, "quantization_config", None)
    if quantization is not None:
        method = quantization.get("quant_method") or "in a way that its config does not name"
        raise CheckpointError(f"{folder} is quantised ({method}); weights of 16 or 32 bits are needed")
    if config.is_encoder_decoder:
        raise CheckpointError(f"{folder} is an encoder-decoder model; a causal language model is needed")
    for setting in ("attention_chunk_size", "use_bidirectional_attention"):  # these change transformers' masks alone
        if getattr(config.get_text_config(decoder=True), setting, None):
            raise CheckpointError(f"{folder} is not supported: its attention needs {setting}")
    return config


def _context_length(base_config: PreTrainedConfig, config: EngineConfig) -> int:
    """Most tokens of a sequence, by the model's position embedding and the user's own limit."""
    text = base_config.get_text_config(decoder=True)
    limit: int | None = getattr(text, "max_position_embeddings", None)
    if limit is None:
        raise CheckpointError(f"{base_config.model_type} has no max_position_embeddings and is not supported")
    rope: dict[str, Any] = getattr(text, "rope_parameters", None) or {}
    for parameters in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if parameters.get("rope_type") == "dynamic":
            raise CheckpointError("rope_type 'dynamic' depends on the longest request of a batch and is not supported")
        if parameters.get("rope_type") == "longrope":
            # Beyond this length every position's embedding changes, also those already in the cache.
            limit = min(limit, parameters.get("original_max_position_embeddings", limit))
    return limit if config.max_context is None else min(limit, config.max_context)


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
    except (ValueError, OSError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise CheckpointError(f"{folder} cannot be loaded: {first_line(error)}") from None
    network: PreTrainedModel
    report: dict[str, set[str]]
    network, report = loaded
    if report["missing_keys"]:
        raise CheckpointError(f"{folder} has no tensor for {min(report['missing_keys'])}")
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
        f"the model's weights take {needed / 2**30:.1f} GiB in {network.dtype}, but of the GPU's {total / 2**30:.1f} "
        f"GiB only {free / 2**30:.1f} are left: choose a smaller dtype or model, or free the GPU"
    )


def _eos_token_ids(folder: Path, text_config: PreTrainedConfig) -> tuple[int, ...]:
    """The tokens that end an answer: the generation config's, else the model config's."""
    ids: int | list[int] | None = text_config.eos_token_id
    if (folder / "generation_config.json").is_file():
        ids = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id or ids
    listed = [ids] if isinstance(ids, int) else ids or []
    return tuple(token for token in listed if 0 <= token < text_config.vocab_size)  # others can never come


def _steer(network: PreTrainedModel, adapter: Adapter | None, steering: Steering) -> None:
    """Replaces adapted layers by steered ones, and fuses layers that read the same input.

    Raises `CheckpointError` for a tensor that matches no module, a target module without tensors, and wrong shapes.
    """
    linears = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    low_rank: dict[str, LowRank] = {}
    if adapter is not None:
        low_rank = dict(adapter.modules)
        _check_match(network, linears, adapter)
    for names in list(_groups(linears)):
        layers = [linears.pop(name) for name in names]  # what is replaced is freed at once, not all at the end
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
    """Names of all linear layers, those to be fused together."""
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
            raise CheckpointError(f"the adapter has tensors for {name}, which is no linear layer of the base model")
        if not config.targets(name):
            raise CheckpointError(f"the adapter has tensors for {name}, which is none of its target_modules")
        layer = linears[name]
        if (a.shape[1], b.shape[0]) != (layer.in_features, layer.out_features):
            raise CheckpointError(
                f"the adapter's {name} maps {a.shape[1]} to {b.shape[0]} features, "
                f"the base model's {layer.in_features} to {layer.out_features}"
            )
    for name, module in network.named_modules():
        if config.targets(name) and name not in adapter.modules:
            what = "has no tensors in the adapter" if isinstance(module, nn.Linear) else "is no linear layer"
            raise CheckpointError(f"target module {name} {what}")
