"""Reading a model folder."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from panacea.errors import CheckpointError
from panacea.model.tokenizer import load_tokenizer
from panacea.text import ChatMessage, load_model_text
from panacea.text.generation_defaults import GenerationDefaults, generation_defaults
from tests.golden_files import BASE
from tests.text.tiny import TEXT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy = tmp_path / "base"
    shutil.copytree(BASE, copy, ignore=shutil.ignore_patterns("*.safetensors"))
    return copy


def rewrite(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")


def test_prompts_equal_those_of_transformers(folder: Path) -> None:
    from transformers import AutoTokenizer

    rewrite(folder / "tokenizer_config.json", bos_token={"__type": "AddedToken", "content": "<|system|>"})
    (folder / "chat_template.jinja").write_text(
        "{{ bos_token }}\n{%- for m in messages %}\n  <|{{ m.role }}|>{{ m.content | trim }}{{ eos_token }}\n"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}\n"
    )
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = load_model_text(folder)
    for words in ("hello", "  two\n\nlines \n", "näive \U0001f600 text", ""):
        turns = [{"role": "system", "content": words}, {"role": "user", "content": words * 2}]
        expected = theirs.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        assert ours.prompt_ids([ChatMessage("system", words), ChatMessage("user", words * 2)]) == expected


@pytest.mark.parametrize("begins", [False, True])
def test_raw_prompts_are_those_of_transformers_with_its_special_tokens(folder: Path, begins: bool) -> None:
    from transformers import AutoTokenizer

    if begins:
        template = [{"SpecialToken": {"id": "<|system|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        tokens = {"<|system|>": {"id": "<|system|>", "ids": [2], "tokens": ["<|system|>"]}}
        processor = {"type": "TemplateProcessing", "single": template, "pair": template, "special_tokens": tokens}
        rewrite(folder / "tokenizer.json", post_processor=processor)
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = load_model_text(folder)
    texts = ["hello", "  two\n\nlines \n", "näive \U0001f600 text", "<|user|>hi<|end|> <|assistant|>", ""]
    assert ours.encode(texts) == theirs(texts)["input_ids"]
    assert ours.encode([""]) == [[2] if begins else []]
    assert [ours.decode(ids) for ids in ours.encode(texts)] == [f"{'<|system|>' * begins}{text}" for text in texts]


def test_reading_a_folder_does_not_import_torch() -> None:
    program = (
        "import sys; from pathlib import Path; import panacea.api; from panacea.text import load_model_text\n"
        "load_model_text(Path(sys.argv[1])); assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(BASE)], check=True)


def test_a_folder_without_tokenizer_file_goes_through_transformers(tmp_path: Path) -> None:
    model = json.loads(TEXT.tokenizer.to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]), "utf-8")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), "utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer", "unk_token": "<|end|>"}')
    text = "How do I sharpen a knife?"
    ids = load_tokenizer(tmp_path).tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == TEXT.tokenizer.encode(text, add_special_tokens=False).ids


def test_prompts_are_neither_cut_nor_padded(folder: Path) -> None:
    tokenizer = TEXT.tokenizer.from_str(TEXT.tokenizer.to_str())
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=100)
    tokenizer.save(str(folder / "tokenizer.json"))
    message = ChatMessage("user", "How do I sharpen a knife?")
    assert load_model_text(folder).prompt_ids([message]) == TEXT.prompt_ids([message])


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_damaged_file_is_a_checkpoint_error_that_names_it(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=str(folder)):
        load_model_text(folder)


def test_an_empty_folder_has_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load_model_text(tmp_path)


def test_a_folder_may_leave_out_all_but_the_tokenizer(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    loaded = load_model_text(folder)
    assert loaded.defaults == GenerationDefaults()
    assert loaded.prompt_ids([ChatMessage("user", "hello")]) == TEXT.prompt_ids([ChatMessage("user", "hello")])


def test_a_base_model_without_template_loads(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    assert load_model_text(folder).prompts is None


def test_defaults_are_openais_where_the_model_says_nothing() -> None:
    assert generation_defaults({"eos_token_id": 1}) == GenerationDefaults(1.0, 1.0, 0)


def test_defaults_are_the_models(folder: Path) -> None:
    said = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1}
    rewrite(folder / "generation_config.json", do_sample=True, **said)
    assert load_model_text(folder).defaults == GenerationDefaults(0.6, 0.9, 20, 0.05, 1.1)


def test_a_model_that_does_not_sample_is_greedy() -> None:
    assert generation_defaults({"do_sample": False, "temperature": 0.6}).temperature == 0


@pytest.mark.parametrize(
    "config",
    [
        {"temperature": 3},
        {"temperature": -1},
        {"temperature": "1"},
        {"top_p": 0},
        {"top_p": True},
        {"top_k": -1},
        {"min_p": 2},
    ],
)
def test_impossible_defaults_are_a_checkpoint_error(config: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match=next(iter(config))):
        generation_defaults(config)


def test_settings_that_are_not_applied_are_told(caplog: pytest.LogCaptureFixture) -> None:
    generation_defaults({"typical_p": 0.9, "min_p": 0.1})
    assert [record.args for record in caplog.records] == [("typical_p",)]
