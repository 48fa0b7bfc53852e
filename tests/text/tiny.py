"""Tokenizers made for a test, beside the golden one."""

import json
from typing import Any

from tokenizers import Tokenizer

from panacea.text import load_model_text
from tests.golden_files import BASE

TEXT = load_model_text(BASE)


def byte_ids(stand_ins: str) -> list[int]:
    """Tokens of single bytes, each written as its printable stand-in in GPT-2's alphabet."""
    vocabulary = TEXT.tokenizer.get_vocab()
    return [vocabulary[char] for char in stand_ins]


def golden_tokenizer_with(**parts: Any) -> Tokenizer:
    """The golden tokenizer with some of its file's top-level entries replaced."""
    return Tokenizer.from_str(json.dumps(json.loads(TEXT.tokenizer.to_str()) | parts))


def added_token(token_id: int, content: str, *, special: bool, normalized: bool = False) -> dict[str, Any]:
    """An entry of a tokenizer file's `added_tokens`."""
    return {
        "id": token_id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": normalized,
        "special": special,
    }


def sentencepiece_tokenizer() -> Tokenizer:
    """Of Llama 2's kind: spaces are U+2581, unknown characters are byte tokens, and the first space is dropped."""
    words = ["\u2581", "\u2581the", "\u2581knife", "the", "k", "n", "!", "\u00e9"]
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    return Tokenizer.from_str(
        json.dumps(
            {
                "version": "1.0",
                "added_tokens": [added_token(0, "<unk>", special=True)],
                "normalizer": None,
                "pre_tokenizer": None,
                "post_processor": None,
                "decoder": {
                    "type": "Sequence",
                    "decoders": [
                        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                        {"type": "ByteFallback"},
                        {"type": "Fuse"},
                        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
                    ],
                },
                "model": {
                    "type": "BPE",
                    "unk_token": "<unk>",
                    "fuse_unk": True,
                    "byte_fallback": True,
                    "vocab": {piece: index for index, piece in enumerate(pieces)},
                    "merges": [],
                },
            }
        )
    )
