"""The tokens that end an answer, for the server and for the training alike."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from panacea.model.token_settings import read_json
from panacea.model.tokenizer import load_tokenizer


def end_token_ids(folder: Path, configured: int | Iterable[int] | None, vocab_size: int) -> tuple[int, ...]:
    """All tokens that generation_config.json, config.json and the tokenizer name as the end of a text.

    `configured` is config.json's `eos_token_id`. Ids outside the vocabulary are left out, because they cannot be
    generated. A folder may lack a tokenizer, as those of some benchmarks do. Raises `CheckpointError` if a file cannot
    be read.
    """
    generated: Any = read_json(folder / "generation_config.json").get("eos_token_id")
    # Order matters to nobody, but it stays the same from run to run.
    ids = dict.fromkeys([*_listed(generated), *_listed(configured), *_of_tokenizer(folder)])
    return tuple(token_id for token_id in ids if 0 <= token_id < vocab_size)


def _listed(ids: int | Iterable[int] | None) -> list[int]:
    return [ids] if isinstance(ids, int) else list(ids or ())


def _of_tokenizer(folder: Path) -> list[int]:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        return []
    return _listed(load_tokenizer(folder).eos_token_id)
