"""Reads a tokenizer from a local folder, without torch if the folder allows it."""

from pathlib import Path

from tokenizers import Tokenizer

from panacea.errors import CheckpointError
from panacea.text.token_settings import read_json, read_token_settings


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder. It encodes whole texts, without padding and truncation.

    `tokenizer.json` is read directly, because transformers would import torch (3 s and 300 MB) into a process without
    tensors. Then the tokens are added that the folder's other files name, as transformers does. Without
    `tokenizer.json`, transformers converts the tokenizer in another format.

    Raises `CheckpointError` if no tokenizer can be read.
    """
    file = folder / "tokenizer.json"
    try:
        tokenizer = _read(folder) if file.is_file() else _converted(folder)
    except CheckpointError:
        raise
    # Both libraries raise Exception itself, ValueError, OSError and ImportError for a folder that they cannot read.
    except Exception as error:
        raise CheckpointError(f"no tokenizer can be read from {folder}: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _read(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    read_token_settings(folder).add_to(tokenizer)
    splits = read_json(folder / "tokenizer_config.json").get("split_special_tokens")
    tokenizer.encode_special_tokens = splits is True
    return tokenizer


def _converted(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer  # noqa: PLC0415 - imports torch

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False).backend_tokenizer
