"""Splitting a checkpoint that holds a model and an adapter into the model's files and the adapter's tensors."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from panacea.errors import CheckpointError
from panacea_train.convert.base_model import copy_beside_weights

_INDEX = "model.safetensors.index.json"


def split_checkpoint(
    source: Path, folder: Path, base_name: Callable[[str], str | None], begin: Callable[[str], None]
) -> dict[str, torch.Tensor]:
    """Writes the model in `source` to `folder`, file by file, and returns the tensors that do not belong to it.

    `base_name`: a tensor's name in the model, or None if it does not belong to the model. `begin` is called with each
    file's name. Tokenizer and configs are copied. Raises `CheckpointError` for a folder without safetensors or damaged
    files.
    """
    files = sorted(source.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{source} has no *.safetensors (other formats are not read)")
    folder.mkdir()
    copy_beside_weights(source, folder)
    taken: dict[str, torch.Tensor] = {}
    places: dict[str, str] = {}
    size_bytes = 0
    for path in files:
        begin(path.name)
        kept: dict[str, torch.Tensor] = {}
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                    new = base_name(name)
                    (taken if new is None else kept)[new or name] = file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from None
        if not kept:
            continue
        for name, tensor in kept.items():
            places[name] = path.name
            size_bytes += tensor.numel() * tensor.element_size()
        save_file(kept, folder / path.name, metadata={"format": "pt"})
        (folder / path.name).chmod(
            (folder / "config.json").stat().st_mode
        )  # safetensors makes files for their owner alone
    if set(places.values()) - {"model.safetensors"}:
        index = {"metadata": {"total_size": size_bytes}, "weight_map": dict(sorted(places.items()))}
        (folder / _INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    return taken
