"""Reads a tokenizer from a local folder, without torch if the folder allows it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from panacea.errors import CheckpointError

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder. It encodes whole texts, without padding and truncation.

    `tokenizer.json` is read directly, because transformers would import torch (3 s and 300 MB) into a process without
    tensors. Without that file, transformers converts the tokenizer in another format.

    Raises `CheckpointError` if no tokenizer can be read.
    """
    file = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file)) if file.is_file() else _converted(folder)
    # Both libraries raise Exception itself, ValueError, OSError and ImportError for a folder that they cannot read.
    except Exception as error:
        raise CheckpointError(f"no tokenizer can be read from {folder}: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in `file`, or {} if there is no such file. Raises `CheckpointError` for any other content."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} does not hold a JSON object")
    return content  # pyright: ignore[reportUnknownVariableType]


def named_tokens(tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    """The tokens that `tokenizer_config.json` names, such as `{"eos_token": "<|end|>"}`."""
    named: dict[str, str] = {}
    for name in _NAMED_TOKENS:
        token = tokenizer_config.get(name)
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str):
            named[name] = content
    return named


def _converted(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer  # noqa: PLC0415 - imports torch

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False).backend_tokenizer
