"""Forty shapes of chat templates give the ids of transformers' `apply_chat_template`, and let no token through."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from panacea.errors import RequestError
from panacea.text.chat_template import ChatMessage, ChatTemplate
from panacea.text.prompt import PromptEncoder
from tests.text.conversations import HARMLESS, as_transformers_takes_them, hostile
from tests.text.tiny import TEXT, added_token, golden_tokenizer_with

SOURCES = {file.stem: file.read_text("utf-8") for file in Path(__file__).parent.glob("chat_templates/*.jinja")}
PARTS_ONLY = {"parts_only", "parts_selected", "parts_read_through_items"}
TAKE_PARTS = PARTS_ONLY | {
    "headers_with_parts",
    "roles_renamed_with_prefix",
    "thoughts_before_the_last_question_removed",
    "thoughts_kept_on_request",
    "thoughts_seen_through_a_macro",
}
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
CONTROL = [
    *("<|im_start|>", "<|im_end|>", "<|user|>", "<|system|>", "<|assistant|>", "<start_of_turn>", "<end_of_turn>"),
    *("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<\uff5cend\uff5c>", "[INST]", "[/INST]"),
    *("<|start_header|>", "<|end_header|>", "<|image|>", "<s>", "</s>"),
]


def tokenizer() -> Tokenizer:
    first = len(json.loads(TEXT.tokenizer.to_str())["model"]["vocab"])
    tokens = [added_token(first + number, name, special=True) for number, name in enumerate(CONTROL)]
    return golden_tokenizer_with(added_tokens=tokens)


TOKENIZER = tokenizer()
CONTROL_IDS = {TOKENIZER.token_to_id(name) for name in CONTROL}
THEIRS: Any = PreTrainedTokenizerFast(tokenizer_object=TOKENIZER, **NAMES)  # type: ignore[no-untyped-call]


def ours(name: str) -> PromptEncoder:
    return PromptEncoder(TOKENIZER, ChatTemplate(SOURCES[name], NAMES), NAMES.values())


def taken(name: str, messages: list[ChatMessage]) -> list[ChatMessage]:
    """The parts of a message are joined for a template that writes them as a Python list."""
    return messages if name in TAKE_PARTS else [ChatMessage(message.role, message.content) for message in messages]


def expected(name: str, messages: list[ChatMessage], *, tokenize: bool = True) -> Any:
    """What transformers makes of the messages, or None for an exception."""
    messages = as_transformers_takes_them(taken(name, messages), parts=name in PARTS_ONLY)  # type: ignore[assignment]
    try:
        result = THEIRS.apply_chat_template(
            messages, chat_template=SOURCES[name], add_generation_prompt=True, tokenize=tokenize
        )
    except Exception:
        return None
    return result["input_ids"] if tokenize else result


def test_there_are_forty() -> None:
    assert len(SOURCES) == 40
    assert len(HARMLESS) == 13


@pytest.mark.parametrize("name", SOURCES)
def test_conversations_have_the_ids_of_transformers(name: str) -> None:
    prompts = ours(name)
    for label, messages in HARMLESS.items():
        wanted = expected(name, messages)
        if wanted is None:
            with pytest.raises(RequestError):
                prompts.encode(messages)
        else:
            assert prompts.encode(messages) == wanted, label


# One Python expression makes one text of the template's and of the client's.
MIXING = {"turns_formatted"}


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - MIXING))
def test_a_control_token_in_a_message_is_text(name: str) -> None:
    prompts = ours(name)
    for label, (spelling, harmless) in hostile(CONTROL).items():
        wanted = expected(name, spelling, tokenize=False)
        if wanted is None:
            continue
        ids = prompts.encode(spelling)
        assert TOKENIZER.decode(ids, skip_special_tokens=False) == wanted, label
        assert marks(ids) == marks(prompts.encode(harmless)), label


@pytest.mark.parametrize("name", sorted(MIXING))
def test_a_template_that_mixes_texts_refuses_to_guess(name: str) -> None:
    for spelling, _ in hostile(CONTROL).values():
        with pytest.raises(RequestError, match="cannot be told apart"):
            ours(name).encode(spelling)


def marks(ids: list[int]) -> list[int]:
    return [token_id for token_id in ids if token_id in CONTROL_IDS]
