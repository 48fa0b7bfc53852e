"""Checks a folder's safetensors by their headers, before any weight is read. This module does not import torch."""

import json
import re
from pathlib import Path
from typing import Any, cast

from panacea.errors import CheckpointError
from panacea.model.folder_format import is_lfs_pointer

INDEX_FILE = "model.safetensors.index.json"
_LENGTH_BYTES = 8
_MOST_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library."""
PLAIN_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})
"""Dtypes of weights that mean what they say."""
_SCALE = re.compile(
    r"(?:.*\.)?(?:(?:\w+_)?weight_scale(?:_inv|_2)?|(?:input|output|act|[qkv]|kv|prob)_scale|\w+_proj_(?:scales|blocks)"
    r"|weight_(?:packed|shape|zero_point)|qweight|scales|qzeros|g_idx|(?:nested_)?absmax|(?:nested_)?quant_map"
    r"|quant_state[.\w]*)"
)
"""Names of the tensors that quantised formats store beside their weights: FP8, GPTQ, AWQ, compressed-tensors, MXFP4,
bitsandbytes."""
_INTEGER_WEIGHT = re.compile(r".*(?:weight|packed|blocks|_proj)[._\w]*")


def check_stored_tensors(folder: Path) -> None:
    """Raises `CheckpointError` for files that are missing or cut off, and for weights that are quantised.

    transformers reads quantised weights as plain numbers if config.json does not describe them, and would be wrong
    without a word.
    """
    for path in _files(folder):
        for name, dtype in read_header(path):
            quantised = _SCALE.fullmatch(name) or dtype.startswith(("F8", "F4", "F6"))
            if quantised or (dtype not in PLAIN_DTYPES and _INTEGER_WEIGHT.fullmatch(name)):
                raise CheckpointError(
                    f"{path}: {_shown(name)} ({_shown(dtype)}) belongs to quantised weights, which config.json does "
                    "not describe: take the model's weights of 16 or 32 bits"
                )


def _files(folder: Path) -> list[Path]:
    """The files of the model's weights, as transformers chooses them."""
    single, index = folder / "model.safetensors", folder / INDEX_FILE
    if single.exists() or not index.exists():
        return [single]
    try:
        content: object = json.loads(index.read_bytes())
        listed: object = cast("dict[str, Any]", content)["weight_map"] if isinstance(content, dict) else None
    except (OSError, ValueError, RecursionError, KeyError):
        listed = None
    if not isinstance(listed, dict) or not all(
        isinstance(name, str) and Path(name).name == name for name in cast("dict[str, Any]", listed).values()
    ):
        raise CheckpointError(f"{index} is damaged: it must map each tensor to a file of this folder (weight_map)")
    return [folder / name for name in sorted(set(cast("dict[str, str]", listed).values()))]


def read_header(path: Path) -> list[tuple[str, str]]:
    """Name and dtype of each tensor in a safetensors file, in the order of the header.

    Raises `CheckpointError` if the file is missing, damaged or cut off, or names a tensor twice.
    """
    header: object = None
    length = size_bytes = 0
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_LENGTH_BYTES)
            length = int.from_bytes(head, "little")
            if is_lfs_pointer(head + file.read(len("version https://git-lfs"))):
                raise CheckpointError(f"{path} is a Git LFS pointer without the weights: run `git lfs pull`")
            file.seek(_LENGTH_BYTES)
            if length <= min(size_bytes, _MOST_HEADER_BYTES):
                header = json.loads(file.read(length), object_pairs_hook=lambda pairs: _once(path, pairs))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: copy or download the whole folder again") from None
    except (OSError, ValueError, RecursionError):
        pass
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} is damaged: it has no safetensors header; copy or download it again")
    try:
        entries = [
            (name, str(entry["dtype"]), int(entry["data_offsets"][1]))
            for name, entry in cast("dict[str, Any]", header).items()
            if name != "__metadata__"
        ]
    except (KeyError, TypeError, ValueError, IndexError):
        raise CheckpointError(f"{path} is damaged: its safetensors header is not valid") from None
    needed = _LENGTH_BYTES + length + max((end for _, _, end in entries), default=0)
    if size_bytes < needed:
        raise CheckpointError(f"{path} is cut off: it has {size_bytes} of {needed} bytes; copy or download it again")
    return [(name, dtype) for name, dtype, _ in entries]


def _once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of the header, which libraries would read differently if it named a tensor twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise CheckpointError(f"{path} is damaged: its header names a tensor twice")
    return found


def _shown(text: str) -> str:
    """A name from a file, short enough for one line."""
    return ascii(text[:80])[1:-1]
