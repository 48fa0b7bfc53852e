"""Tiny classifiers with random weights in folders, and what they say of one sequence: by transformers alone, without
padding, of tokens that the tokenizers library made."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from tests.golden_files import BASE

QUESTION, ANSWER = "how do i boil an egg ?", "put it in water for eight minutes ."
WORDS = [*QUESTION.split(), *ANSWER.split(), "no", "so", "soft"]
POSITIONS = 24
SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.3}


def bert(folder: Path, **changes: Any) -> Path:
    """[CLS] prompt [SEP] answer [SEP], with token types."""
    special = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}
    _save_tokenizer(folder, special, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", "BertTokenizer")
    config = BertConfig(**_options(len(special), intermediate_size=24, pad_token_id=0, **changes))
    return _save(BertForSequenceClassification, config, folder)


def roberta(folder: Path, **changes: Any) -> Path:
    """<s> prompt </s> </s> answer </s>, no types, positions from 2 on."""
    special = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    _save_tokenizer(folder, special, "<s> $A </s>", "<s> $A </s> </s> $B </s>", "PreTrainedTokenizerFast")
    options: dict[str, Any] = {"intermediate_size": 24, "pad_token_id": 1, "max_position_embeddings": POSITIONS + 2}
    config = RobertaConfig(**_options(len(special), type_vocab_size=1, **(options | changes)))
    return _save(RobertaForSequenceClassification, config, folder)


def gpt2(folder: Path, **changes: Any) -> Path:
    """Prompt and answer in a row; a decoder without any padding token."""
    _save_tokenizer(folder, {}, None, None, "PreTrainedTokenizerFast")
    return _save(GPT2ForSequenceClassification, GPT2Config(**_options(0, pad_token_id=None, **changes)), folder)


def llama(folder: Path, **changes: Any) -> Path:
    """The golden tokenizer with its chat template, whose conversations end with <|end|>."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((BASE / name).read_bytes())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    options: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "pad_token_id": tokenizer.token_to_id("<|pad|>"),
    }
    config = LlamaConfig(
        **_options(0, **({"intermediate_size": 24, "max_position_embeddings": 512} | options | changes))
    )
    return _save(LlamaForSequenceClassification, config, folder)


def logits(folder: Path, ids: Sequence[int], types: Sequence[int] | None = None) -> Tensor:
    """(outputs,) float64 of one sequence."""
    loader: Any = AutoModelForSequenceClassification
    network = loader.from_pretrained(folder, dtype=torch.float64).eval()
    given = {} if types is None else {"token_type_ids": torch.tensor([types])}
    with torch.no_grad():
        result: Tensor = network(input_ids=torch.tensor([ids]), **given).logits[0]
    return result


def pair_logits(folder: Path, prompt: str, answer: str) -> Tensor:
    """(outputs,) of a prompt and an answer as the tokenizer puts them together."""
    encoded = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(prompt, answer)
    is_bert = json.loads((folder / "config.json").read_text("utf-8"))["model_type"] == "bert"
    return logits(folder, encoded.ids, encoded.type_ids if is_bert else None)


def text_logits(folder: Path, text: str, last: int | None = None) -> Tensor:
    """(outputs,) of a text, or of its `last` tokens."""
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    return logits(folder, ids if last is None else ids[-last:])


def change_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")


def _options(specials: int, **changes: Any) -> dict[str, Any]:
    base = {"vocab_size": specials + len(WORDS), "max_position_embeddings": POSITIONS, "num_labels": 1}
    return SIZES | base | changes


def _save_tokenizer(folder: Path, special: dict[str, int], single: str | None, pair: str | None, kind: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = special | {word: len(special) + index for index, word in enumerate(WORDS)}
    unknown = next((token for token in special if "unk" in token.lower()), "no")
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(special))
    if single is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=list(special.items())
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}), "utf-8")


def _save(kind: type[PreTrainedModel], config: Any, folder: Path) -> Path:
    torch.manual_seed(0)
    network = kind(config)
    network.save_pretrained(folder)
    return folder
