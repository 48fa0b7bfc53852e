"""The base model of a checkpoint: its place, its linear layers, and the model itself."""

import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from panacea.errors import CheckpointError
from panacea_train.transformers_errors import loading

Shape = tuple[int, int]
"""(in, out) of a linear layer."""


def as_base(model: str) -> Path | str:
    """`model` as a folder if it is one, else as a hub id."""
    folder = Path(model).expanduser()
    return folder.resolve() if folder.is_dir() else model


def relative_base(base: Path | str, folder: Path) -> str:
    """The base's name in the config of an adapter in `folder`: a hub id, or a local base relative to the folder."""
    return base if isinstance(base, str) else Path(os.path.relpath(base.absolute(), folder.absolute())).as_posix()


def linear_layers(folder: Path) -> dict[str, Shape]:
    """All linear layers of the model in `folder` that a preference can steer, without reading its weights.

    The output head is not included: it gets only the rows that sample. Raises `CheckpointError` if there is no model.
    """
    with loading(folder, CheckpointError), torch.device("meta"):
        config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        model: Any = AutoModelForCausalLM
        network: PreTrainedModel = model.from_config(config, trust_remote_code=False)
    head: nn.Module | None = network.get_output_embeddings()  # type: ignore[no-untyped-call]
    return {
        name: (module.in_features, module.out_features)
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


def check_fits(what: str, shapes: Mapping[str, Shape], linears: Mapping[str, Shape]) -> None:
    """Raises `CheckpointError` that names a module of `shapes` that the base lacks or has in another shape."""
    for name, shape in shapes.items():
        if name not in linears:
            raise CheckpointError(
                f"{what} adapts {name}, which is not a linear layer inside the base model: it cannot be steered"
            )
        if shape != linears[name]:
            raise CheckpointError(
                f"{what}: {name} maps {shape[0]} to {shape[1]} features, the base model's "
                f"{linears[name][0]} to {linears[name][1]}"
            )


_BESIDE_WEIGHTS = ("*.json", "*.jinja", "*.model", "*.txt")
_NOT_THE_MODELS = ("*.safetensors.index.json", "adapter_config.json", "panacea_config.json", "evaluation.json")
_TEMPLATES = "additional_chat_templates"


def copy_beside_weights(source: Path, folder: Path) -> None:
    """Copies a model's files other than weights: config, generation config, tokenizer, chat templates."""
    for path in sorted(path for pattern in _BESIDE_WEIGHTS for path in source.glob(pattern)):
        if path.is_file() and not any(path.match(pattern) for pattern in _NOT_THE_MODELS):
            shutil.copyfile(path, folder / path.name)
    if (source / _TEMPLATES).is_dir():
        shutil.copytree(source / _TEMPLATES, folder / _TEMPLATES, copy_function=shutil.copyfile)


def target_names(adapted: Collection[str], linears: Collection[str]) -> tuple[str, ...]:
    """`target_modules` that match exactly `adapted`: last parts of names if these suffice, else whole names."""
    last = {name.rpartition(".")[2] for name in adapted}
    meant = {name for name in linears if name.rpartition(".")[2] in last}
    return tuple(sorted(last if meant == set(adapted) else adapted))


def load_base(folder: Path, dtype: torch.dtype | str, device: torch.device) -> PreTrainedModel:
    """The model in `folder`, loaded by transformers alone. Raises `CheckpointError` if it cannot be loaded."""
    with loading(folder, CheckpointError):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    network: PreTrainedModel
    report: dict[str, set[str]]
    network, report = loaded
    if report["missing_keys"]:
        raise CheckpointError(f"{folder} has no tensor for {min(report['missing_keys'])}")
    network.train(mode=False)
    network.requires_grad_(requires_grad=False)
    network.to(device)  # type: ignore[arg-type]  # transformers wraps `to` without its types
    return network
