"""Reads a tokenizer from a local folder, without torch if the folder allows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from panacea.errors import CheckpointError
from panacea.model.token_settings import read_json, read_token_settings


@dataclass(frozen=True)
class LoadedTokenizer:
    """A model's tokenizer. It encodes whole texts, without padding and truncation."""

    tokenizer: Tokenizer
    names: Mapping[str, str]
    """Tokens by their names, such as `{"eos_token": "<|end|>"}`. Chat templates read them as variables."""

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text; None if the tokenizer names none."""
        name = self.names.get("eos_token")
        return None if name is None else self.tokenizer.token_to_id(name)


def load_tokenizer(folder: Path) -> LoadedTokenizer:
    """The tokenizer of a model folder.

    `tokenizer.json` is read directly, because transformers would import torch (3 s and 300 MB) into a process without
    tensors. Then the tokens are added that the folder's other files name, as transformers does. Without
    `tokenizer.json`, transformers converts the tokenizer in another format.

    Raises `CheckpointError` if no tokenizer can be read.
    """
    try:
        loaded = _read(folder) if (folder / "tokenizer.json").is_file() else _converted(folder)
    except CheckpointError:
        raise
    # Both libraries raise Exception itself, ValueError, OSError and ImportError for a folder that they cannot read.
    except Exception as error:
        raise CheckpointError(f"no tokenizer can be read from {folder}: {error}") from error
    loaded.tokenizer.no_padding()
    loaded.tokenizer.no_truncation()
    return loaded


def _read(folder: Path) -> LoadedTokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    settings = read_token_settings(folder)
    settings.add_to(tokenizer)
    splits = read_json(folder / "tokenizer_config.json").get("split_special_tokens")
    tokenizer.encode_special_tokens = splits is True
    return LoadedTokenizer(tokenizer, settings.names)


def _converted(folder: Path) -> LoadedTokenizer:
    from transformers import AutoTokenizer  # noqa: PLC0415 - imports torch

    theirs = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return LoadedTokenizer(theirs.backend_tokenizer, theirs.special_tokens_map)
