"""Tokens outside tokenizer.json are read as transformers' AutoTokenizer reads them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from panacea.errors import CheckpointError
from panacea.model.token_settings import read_token_settings
from panacea.text import ChatMessage, load_model_text
from tests.golden_files import BASE
from tests.text.tiny import added_token

TEXTS = ("a <|new|> b", "<|image|><|other|> <think>x</think>", "A <pre> b", "<|end|><|user|>", "<ext0> <ext1>")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    "{{ image_token }}{{ pad_token }}{{ video_token }}{{ unk_token }}"
)


def entry(content: str, *, special: bool = True, **flags: bool) -> dict[str, Any]:
    token = added_token(0, content, special=special) | flags
    return {name: value for name, value in token.items() if name != "id"}


def objects(token: dict[str, Any]) -> dict[str, Any]:
    return {"__type": "AddedToken", **token}


KINDS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "texts": {"tokenizer_config.json": {"eos_token": "<|new|>", "bos_token": "<|user|>", "pad_token": None}},
    "objects": {"tokenizer_config.json": {"eos_token": objects(entry("<|new|>", lstrip=True)), "add_bos_token": True}},
    "a named token of its own": {"tokenizer_config.json": {"image_token": "<|image|>", "eos_token": "<|end|>"}},
    "named tokens in an object": {
        "tokenizer_config.json": {"extra_special_tokens": {"image_token": "<|image|>", "video_token": "<|other|>"}}
    },
    "a list": {"tokenizer_config.json": {"extra_special_tokens": ["<|new|>", "<|other|>", "<|user|>"]}},
    "the old list": {"tokenizer_config.json": {"additional_special_tokens": ["<|image|>"], "eos_token": "<|new|>"}},
    "numbered tokens": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                "361": entry("<|other|>", rstrip=True),
                "360": entry("<think>", special=False, normalized=True),
                "1": entry("<|end|>"),
            },
            "eos_token": "<|new|>",
        },
        "special_tokens_map.json": {"eos_token": "<|image|>"},
    },
    "the map": {"special_tokens_map.json": {"eos_token": "<|new|>", "pad_token": "<|other|>"}},
    "the map of objects": {
        "special_tokens_map.json": {"eos_token": {"content": "<|new|>", "lstrip": True, "rstrip": False}},
        "tokenizer_config.json": {"eos_token": "<|other|>"},
    },
    "lists in both": {
        "special_tokens_map.json": {"extra_special_tokens": ["<|image|>", "<|new|>"]},
        "tokenizer_config.json": {"extra_special_tokens": ["<|new|>", "<|other|>"]},
    },
    "added_tokens.json": {
        "added_tokens.json": {"<ext1>": 355, "<ext0>": 354, "<|new|>": 356},
        "tokenizer_config.json": {"eos_token": "<|new|>"},
    },
    "flags that a tokenizer file overrides": {
        "tokenizer_config.json": {"add_bos_token": True, "add_eos_token": True, "bos_token": "<|user|>"}
    },
    "no control tokens at all": {"tokenizer_config.json": {"split_special_tokens": True}},
}


def model_folder(parent: Path, files: dict[str, Any]) -> Path:
    folder = parent / "base"
    folder.mkdir()
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(BASE / name, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for name, content in {**files, "tokenizer_config.json": config | files.get("tokenizer_config.json", {})}.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_ids_special_tokens_and_templates_are_those_of_auto_tokenizer(kind: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path, KINDS[kind])
    theirs: Any = AutoTokenizer.from_pretrained(folder)
    ours = load_model_text(folder)
    assert described(ours.tokenizer) == described(theirs.backend_tokenizer)
    assert dict(read_token_settings(folder).names) == theirs.special_tokens_map
    assert ours.encode(TEXTS) == theirs(list(TEXTS))["input_ids"]
    messages = [{"role": "user", "content": "a knife"}]
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    if kind != "no control tokens at all":
        assert ours.prompt_ids([ChatMessage("user", "a knife")]) == expected


def described(tokenizer: Any) -> dict[int, str]:
    return {number: repr(token) for number, token in sorted(tokenizer.get_added_tokens_decoder().items())}


def test_a_token_without_content_is_a_checkpoint_error(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, {"tokenizer_config.json": {"eos_token": {"lstrip": True}}})
    with pytest.raises(CheckpointError, match="token without content"):
        load_model_text(folder)


def test_templates_are_found_in_all_places(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, {"chat_template.json": {"chat_template": "from json"}})

    def shown() -> str:
        text = load_model_text(folder)
        return text.decode(text.prompt_ids([ChatMessage("user", "x")]))

    more = folder / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text("never")
    (folder / "chat_template.jinja").write_text("from the file")
    assert shown() == "from the file"
    (folder / "chat_template.jinja").unlink()
    assert shown() == "from json"
    (more / "default.jinja").write_text("from the folder")
    assert shown() == "from the folder"
