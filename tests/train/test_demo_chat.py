"""The demo's tokenizer and chat template: what is trained is what servers render, and nobody can forge a turn."""

import pytest
from transformers import PreTrainedTokenizerFast

from panacea.text.chat_template import ChatMessage
from panacea_lab.demo.demo_chat import SPECIAL_TOKENS, SampleStream, prompt_text, render, train_tokenizer
from panacea_lab.world.world_texts import World, load_world


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


@pytest.fixture(scope="module")
def tokenizer(world: World) -> PreTrainedTokenizerFast:
    return train_tokenizer(world, seed=0, vocab_size=600, context=256)


def test_template_renders_what_training_saw(tokenizer: PreTrainedTokenizerFast) -> None:
    turns = [
        ChatMessage("system", "Be kind. "),
        ChatMessage("user", " Hello"),
        ChatMessage("assistant", "Hi!"),
        ChatMessage("user", "boil an egg"),
    ]
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "".join(map(render, turns))
    with_prompt = tokenizer.apply_chat_template(messages[-1:], tokenize=False, add_generation_prompt=True)
    assert with_prompt == prompt_text("boil an egg") == "<|user|>boil an egg<|end|><|assistant|>"


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_content_cannot_forge_a_special_token(tokenizer: PreTrainedTokenizerFast, token: str) -> None:
    for content in (token, f"a{token}b", f"<|{token}", f"{token}{token}", token.replace("<|", "<<||")):
        text = tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
        assert isinstance(text, str)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        special = [tokenizer.decode([i]) for i in ids if i in tokenizer.all_special_ids]
        assert special == ["<|user|>", "<|end|>"]


def test_an_unknown_role_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(Exception, match="roles are system, developer, user and assistant"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    for text in ("How do I boil an egg?", "  Grüße, 日本 \n\t🥚", "<| end |>"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text


def test_samples_learn_the_answers_and_nothing_else(world: World, tokenizer: PreTrainedTokenizerFast) -> None:
    samples = SampleStream(world, tokenizer, seed=0, context=256).draw(200)
    for sample in samples:
        assert len(sample.ids) == len(sample.learned) <= 256
        learned = tokenizer.decode([i for i, is_learned in zip(sample.ids, sample.learned, strict=True) if is_learned])
        text = str(tokenizer.decode(sample.ids))
        answers = [turn.split("<|end|>")[0] for turn in text.split("<|assistant|>")[1:]]
        assert learned == "".join(f"{answer}<|end|>" for answer in answers)
