"""Where a prompt's tokens stand in the text that is shown of it."""

from dataclasses import replace

import pytest
from tokenizers import Tokenizer, normalizers
from tokenizers.processors import TemplateProcessing

from panacea.text import ModelText, PromptTokens
from panacea.text.vocabulary import Vocabulary
from tests.text.tiny import TEXT, sentencepiece_tokenizer


def with_tokenizer(tokenizer: Tokenizer) -> ModelText:
    return replace(TEXT, tokenizer=tokenizer, vocabulary=Vocabulary(tokenizer))


@pytest.mark.parametrize(
    "shown",
    ["How do I sharpen a knife?", "  two\n\tspaces ", "\U0001f600\U0001f600 \u6bdb\u00e9", "<|user|>hi<|end|>", "a"],
)
def test_tokens_lie_end_to_end_in_the_text(shown: str) -> None:
    (prompt_ids,) = TEXT.encode([shown])
    tokens = PromptTokens.of(TEXT, prompt_ids, shown)
    assert b"".join(tokens.tokens).decode() == shown
    assert list(tokens.starts) == sorted(tokens.starts)
    for index, start in enumerate(tokens.starts):
        before = b"".join(tokens.tokens[:index])
        assert start == len(before.decode(errors="ignore"))


def test_a_token_that_begins_every_text_is_at_its_beginning() -> None:
    tokenizer = Tokenizer.from_str(TEXT.tokenizer.to_str())
    tokenizer.post_processor = TemplateProcessing(single="<|user|> $A", special_tokens=[("<|user|>", 3)])
    text = with_tokenizer(tokenizer)
    (prompt_ids,) = text.encode(["a knife"])
    assert prompt_ids[0] == 3
    tokens = PromptTokens.of(text, prompt_ids, "a knife")
    assert tokens.starts[:2] == (0, 0)
    assert tokens.tokens[0] == b"<|user|>"
    assert tokens.starts[-1] == len("a knife") - len(tokens.tokens[-1])


def test_sentencepiece_drops_the_first_space_only() -> None:
    text = with_tokenizer(sentencepiece_tokenizer())
    vocabulary = text.tokenizer.get_vocab()
    prompt_ids = [vocabulary[word] for word in ("\u2581the", "\u2581knife", "!")]
    assert PromptTokens.of(text, prompt_ids, "the knife!").starts == (0, 3, 9)


def test_a_text_that_the_tokenizer_changed_keeps_all_places_within_it() -> None:
    tokenizer = Tokenizer.from_str(TEXT.tokenizer.to_str())
    tokenizer.normalizer = normalizers.NFKD()
    text = with_tokenizer(tokenizer)
    shown = "\ufb01\ufb01\ufb01"  # three ligatures, six letters
    (prompt_ids,) = text.encode([shown])
    starts = PromptTokens.of(text, prompt_ids, shown).starts
    assert list(starts) == sorted(starts)
    assert max(starts) <= len(shown)
