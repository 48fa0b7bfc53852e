"""Models of real shapes with random weights, made on the device itself: nothing to download, nothing to copy there."""

import copy
import gc
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from panacea.config import EngineConfig
from panacea.errors import ConfigError, first_line
from panacea.model.adapter import Adapter, LowRank
from panacea.model.adapter_config import SHARED, AdapterConfig
from panacea.model.attention_interface import ATTENTION, register_attention
from panacea.model.loader import LoadedModel, assemble
from panacea.model.steered_linear import SteeredLinear
from panacea.preference import Dimension, Preference, PreferenceSpace

CONFIGS = Path(__file__).parent / "configs"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
DIMENSIONS = ("helpful", "harmless", "concise")
WEIGHT_STD = 0.02
"""As Llama and Qwen are initialised: activations stay finite in 16 bits through all layers."""


def names() -> list[str]:
    """The configs that ship with the bench."""
    return sorted(path.stem for path in CONFIGS.glob("*.json"))


def read_config(model: str) -> PreTrainedConfig:
    """The config of this name, or of the config.json at this path. Raises `ConfigError`."""
    path = CONFIGS / f"{model}.json" if model in names() else Path(model)
    if path.is_dir():
        path /= "config.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        config: PreTrainedConfig = AutoConfig.for_model(**content)
    except FileNotFoundError:
        raise ConfigError(f"{model} is not a config.json, and not one of {', '.join(names())}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} is not a model's config.json: {first_line(error)}") from None
    return config


def make_network(
    config: PreTrainedConfig, device: torch.device, dtype: torch.dtype, attention: str = ATTENTION, seed: int = 0
) -> PreTrainedModel:
    """transformers' network with random weights. `attention` is the engine's own, or one of transformers'.

    Raises `ConfigError` for a model that a CPU's memory cannot hold.
    """
    if device.type == "cpu":
        _check_memory(config, dtype)
    register_attention()
    torch.manual_seed(seed)
    auto: Any = AutoModelForCausalLM
    with torch.device(device):
        network: PreTrainedModel = auto.from_config(config, dtype=dtype, attn_implementation=attention)
    network.train(mode=False)
    network.requires_grad_(requires_grad=False)
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1 or name.endswith(".bias"):
            nn.init.normal_(parameter, std=WEIGHT_STD)
        else:
            nn.init.ones_(parameter)  # the norms
    return network


def _check_memory(config: PreTrainedConfig, dtype: torch.dtype) -> None:
    auto: Any = AutoModelForCausalLM
    with torch.device("meta"):
        network: PreTrainedModel = auto.from_config(config, dtype=dtype)
    # Fusing the projections takes as much again for a moment.
    needed = 2 * sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else needed
    if needed > memory:
        raise ConfigError(
            f"a model of this size takes {needed / 2**30:.0f} GiB while it is loaded, and this machine has "
            f"{memory / 2**30:.0f}: on a CPU choose the model tiny"
        )


def make_adapter(network: PreTrainedModel, rank: int, seed: int = 0) -> Adapter:
    """A random adapter of all projections: a column for each dimension, and shared ones up to `rank`."""
    dimensions = DIMENSIONS[:rank]
    columns = (*[SHARED] * (rank - len(dimensions)), *range(len(dimensions)))
    generator = torch.Generator(device=network.device).manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=network.device, dtype=network.dtype)

    modules = {
        name: LowRank(
            random(rank, module.in_features) * WEIGHT_STD, random(module.out_features, rank) * WEIGHT_STD, random(rank)
        )
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(TARGETS)
    }
    space = PreferenceSpace(tuple(Dimension(name) for name in dimensions), (1.0,) * len(dimensions))
    return Adapter(AdapterConfig("random", 1.0, TARGETS, columns, space), modules)


def load_variants(
    config: PreTrainedConfig,
    device: torch.device,
    dtype: torch.dtype,
    ranks: Sequence[int | None],
    engine_config: EngineConfig,
) -> list[LoadedModel]:
    """One random model, ready for steps once with each adapter (None: the bare base). They share the base's weights."""
    network = make_network(config, device, dtype)
    copies = [_copy(network) for _ in ranks[1:]]
    models: list[LoadedModel] = []
    for rank, own in zip(ranks, [network, *copies], strict=True):
        adapter = None if rank is None else make_adapter(own, rank)
        models.append(assemble(own, adapter, engine_config, eos_token_ids=()))
        _share_weights(models[0].network, own)
    return models


def _copy(network: PreTrainedModel) -> PreTrainedModel:
    """The same modules anew, around the very same parameters."""
    shared = {id(parameter): parameter for parameter in network.parameters()}
    return copy.deepcopy(network, shared)


def _share_weights(of: nn.Module, into: nn.Module) -> None:
    """Lets the projections that the loader fused in `into` use the memory of the same ones in `of`."""
    sources = {name: module for name, module in of.named_modules() if isinstance(module, SteeredLinear)}
    for name, module in into.named_modules():
        if isinstance(module, SteeredLinear) and name in sources:
            module.weight.data = sources[name].weight.data


def preferences(count: int, rank: int, *, different: bool) -> list[Preference]:
    """`count` preferences for an adapter of `make_adapter`: all different ones, or one and the same."""
    dimensions = min(rank, len(DIMENSIONS))
    generator = torch.Generator().manual_seed(1)
    draws = torch.rand(count, dimensions, generator=generator, dtype=torch.float64) + 1e-3
    rows: list[list[float]] = (draws / draws.sum(dim=1, keepdim=True)).tolist()
    return [tuple(row if different else rows[0]) for row in rows]


def free_memory(device: torch.device) -> None:
    """Frees unused memory for the next model."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
