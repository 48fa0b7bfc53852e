"""Names what a model's folder or file is, where it is not what the server reads. This module does not import torch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from panacea.errors import CheckpointError

_SAVE = (
    "write it again with transformers: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OUT), and the "
    "same with AutoTokenizer"
)
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_LFS_POINTER = b"version https://git-lfs"


def check_model_file(path: Path) -> None:
    """Raises `CheckpointError` if `path` is a file. The line says what kind of file it is, and what to take instead."""
    try:
        if not path.is_file():
            return
    except OSError:  # older Pythons raise for a name that is too long, and `local_folder` reports it
        return
    if path.suffix == ".gguf":
        raise CheckpointError(f"{path} is a GGUF file of llama.cpp: give a folder with the model's safetensors")
    raise CheckpointError(f"{path} is a file: give the model's folder, which holds config.json and safetensors")


def check_model_folder(folder: Path) -> None:
    """Raises `CheckpointError` if the folder holds no transformers model with safetensors.

    It reads names and small JSON files only. The line says what the folder is, and what to take instead.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(_without_config(folder))
    if (folder / "hf_quant_config.json").is_file():
        raise CheckpointError(
            f"{folder} is quantised (hf_quant_config.json, by ModelOpt): take the model's weights of 16 or 32 bits"
        )
    if (folder / "modules.json").is_file() and (folder / "config_sentence_transformers.json").is_file():
        raise CheckpointError(f"{folder} is an embedding model (sentence-transformers): take a causal language model")
    if not _found(folder, "*.safetensors", "*.safetensors.index.json"):
        raise CheckpointError(_without_safetensors(folder))


def check_tokenizer(folder: Path) -> None:
    """Raises `CheckpointError` if the folder holds no tokenizer. An engine needs none, but a server does."""
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise CheckpointError(
            f"{folder} has no tokenizer (tokenizer.json is missing): copy the files of the base model's tokenizer there"
        )


def _without_config(folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        kind = _peft_type(folder)
        if kind == "PANACEA":
            return f"{folder} is a Panacea adapter, not a model: give it with --adapter"
        return (
            f"{folder} is a {kind} adapter of peft, not a model: `panacea convert soup` turns LoRA adapters into a "
            "Panacea adapter, and peft's merge_and_unload writes it into its base"
        )
    if _found(folder, "*.gguf"):
        return f"{folder} holds GGUF files of llama.cpp: give a folder with the model's safetensors"
    if _found(folder, "consolidated*.safetensors", "consolidated*.pth") or (folder / "params.json").is_file():
        return (
            f"{folder} holds a model in its author's own format (params.json, consolidated): give its folder in "
            "transformers' format, with config.json"
        )
    if (folder / "model_index.json").is_file():
        return f"{folder} is a diffusion pipeline (model_index.json), not a language model"
    return f"{folder} is not a model folder: config.json is missing"


def _without_safetensors(folder: Path) -> str:
    if _found(folder, "*.bin", "*.pt", "*.pth", "*.ckpt"):
        return f"{folder} holds its weights as pickle, which can run code and is not read: {_SAVE}"
    if _found(folder, "*.gguf"):
        return f"{folder} holds its weights as GGUF: give a folder with the model's safetensors"
    for suffix, framework in (("*.h5", "TensorFlow"), ("*.msgpack", "Flax"), ("*.onnx", "ONNX")):
        if _found(folder, suffix):
            return f"{folder} holds its weights for {framework}: {_SAVE}"
    return f"{folder} has no weights: no .safetensors file is there"


def _found(folder: Path, *patterns: str) -> Sequence[Path]:
    return [path for pattern in patterns for path in folder.glob(pattern)]


def _peft_type(folder: Path) -> str:
    try:
        content: object = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return "damaged"
    kind = cast("dict[str, Any]", content).get("peft_type") if isinstance(content, dict) else None
    return kind if isinstance(kind, str) and kind.isidentifier() and len(kind) < 40 else "damaged"


def is_lfs_pointer(head: bytes) -> bool:
    """Whether a file that begins with `head` only stands for one that Git LFS has not fetched."""
    return head.startswith(_LFS_POINTER)
