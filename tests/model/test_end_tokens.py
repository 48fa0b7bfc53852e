"""An answer ends with every token that the model's files name, in the server as in the training."""

import json
import shutil
from pathlib import Path

import pytest

from panacea.config import EngineConfig
from panacea.errors import CheckpointError
from panacea.model.end_tokens import end_token_ids
from panacea.model.loader import load_model
from panacea_train.data.encoding import ConversationEncoder
from tests.golden_files import BASE

END, USER, ASSISTANT = 1, 3, 4
VOCABULARY = 354


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The golden base. Its generation_config.json names another token than its tokenizer."""
    folder = tmp_path / "base"
    shutil.copytree(BASE, folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": USER}))
    rewrite(folder / "tokenizer_config.json", eos_token="<|end|>")
    return folder


def rewrite(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")


def test_all_files_are_asked(folder: Path) -> None:
    assert end_token_ids(folder, ASSISTANT, VOCABULARY) == (USER, ASSISTANT, END)
    assert end_token_ids(folder, [END, ASSISTANT, VOCABULARY, -1], VOCABULARY) == (USER, END, ASSISTANT)
    assert end_token_ids(folder, None, END) == ()
    (folder / "generation_config.json").write_text('{"eos_token_id": [4, 3]}')
    assert end_token_ids(folder, None, VOCABULARY) == (ASSISTANT, USER, END)
    (folder / "generation_config.json").write_text("{}")
    assert end_token_ids(folder, None, VOCABULARY) == (END,)
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"generation_config.json cannot be read as JSON"):
        end_token_ids(folder, None, VOCABULARY)


def test_the_map_of_special_tokens_counts(folder: Path) -> None:
    rewrite(folder / "tokenizer_config.json", eos_token=None)
    (folder / "special_tokens_map.json").write_text('{"eos_token": {"content": "<|assistant|>"}}')
    assert end_token_ids(folder, None, VOCABULARY) == (USER, ASSISTANT)


def test_a_folder_without_tokenizer_names_what_its_configuration_names(tmp_path: Path) -> None:
    assert end_token_ids(tmp_path, 7, VOCABULARY) == (7,)


def test_the_token_that_training_teaches_ends_an_answer_in_the_server(folder: Path) -> None:
    from transformers import AutoTokenizer

    from panacea.text import ChatMessage

    model = load_model(EngineConfig(model=folder, device="cpu"))
    assert set(model.eos_token_ids) == {USER, END}
    taught = ConversationEncoder(AutoTokenizer.from_pretrained(folder), model.eos_token_ids)
    answer = taught.answer(taught.prompt([ChatMessage("user", "How?")]), "So.")
    assert answer[-1] in model.eos_token_ids
