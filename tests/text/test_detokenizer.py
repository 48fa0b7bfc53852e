"""Text from tokens one at a time is the text of all tokens at once."""

import time

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from panacea.text.detokenizer import Detokenizer
from tests.text.tiny import TEXT, byte_ids, sentencepiece_tokenizer

SENTENCEPIECE = sentencepiece_tokenizer()
SPECIAL = TEXT.vocabulary.special_ids

any_tokens = st.lists(st.integers(0, TEXT.tokenizer.get_vocab_size() + 5), max_size=60)
byte_tokens = st.lists(st.sampled_from(byte_ids("ðŁĺĢæ¯¨ÿÃ©a")), min_size=1, max_size=120)


def pieces(tokenizer: Tokenizer, token_ids: list[int], context: list[int] | None = None) -> list[str]:
    detokenizer = Detokenizer(tokenizer, SPECIAL if tokenizer is TEXT.tokenizer else {0}, context or ())
    return [*(detokenizer.push(token_id) for token_id in token_ids), detokenizer.flush()]


@given(any_tokens)
def test_any_tokens_give_what_decoding_them_all_gives(token_ids: list[int]) -> None:
    assert "".join(pieces(TEXT.tokenizer, token_ids)) == TEXT.tokenizer.decode(token_ids)


@given(byte_tokens)
def test_whole_and_broken_characters_give_what_decoding_them_all_gives(token_ids: list[int]) -> None:
    assert "".join(pieces(TEXT.tokenizer, token_ids)) == TEXT.tokenizer.decode(token_ids)


@given(st.lists(st.sampled_from(byte_ids("ðæÿ")), min_size=33, max_size=120), byte_tokens)
def test_so_do_characters_that_are_never_finished(broken: list[int], then: list[int]) -> None:
    assert "".join(pieces(TEXT.tokenizer, broken + then)) == TEXT.tokenizer.decode(broken + then)


@given(st.text(max_size=40))
def test_any_text_survives_encoding_and_streaming(text: str) -> None:
    ids = TEXT.tokenizer.encode(text, add_special_tokens=False).ids
    assert "".join(pieces(TEXT.tokenizer, ids)) == TEXT.tokenizer.decode(ids)


any_words = st.lists(
    st.sampled_from(["\u2581", "\u2581the", "\u2581knife", "the", "k", "!", "\u00e9", "\U0001f600", "毨"])
)


def sentencepiece_ids(words: list[str]) -> list[int]:
    ids: list[int] = []
    for word in words:
        known = SENTENCEPIECE.token_to_id(word)
        ids.extend([known] if known is not None else [byte + 1 for byte in word.encode()])
    return ids


@given(any_words)
def test_sentencepiece_keeps_inner_spaces_and_drops_the_first(words: list[str]) -> None:
    ids = sentencepiece_ids(words)
    assert "".join(pieces(SENTENCEPIECE, ids)) == SENTENCEPIECE.decode(ids)


@given(any_words, any_words)
def test_behind_a_context_text_goes_on_with_its_first_space(before: list[str], after: list[str]) -> None:
    context, ids = sentencepiece_ids(before), sentencepiece_ids(after)
    # Special tokens stand between the two in a prompt that ends with one.
    assert SENTENCEPIECE.decode(context) + "".join(
        pieces(SENTENCEPIECE, ids, [0, *context, 0])
    ) == SENTENCEPIECE.decode(context + ids)


def test_behind_a_context_that_ends_within_a_character_text_begins_anew() -> None:
    first, *rest = byte_ids("ðŁĺĢ")
    assert "".join(pieces(TEXT.tokenizer, [*rest, *byte_ids("a")], [first])) == "\ufffd\ufffd\ufffda"
    assert pieces(TEXT.tokenizer, byte_ids("a"), TEXT.encode(["\ufffd"])[0]) == ["a", ""]


def test_a_character_of_four_tokens_comes_with_the_last_of_them() -> None:
    assert pieces(TEXT.tokenizer, byte_ids("ðŁĺĢ")) == ["", "", "", "\U0001f600", ""]


def test_text_that_is_finished_is_not_held_back() -> None:
    ids = TEXT.tokenizer.encode("How do I sharpen a knife?", add_special_tokens=False).ids
    assert all(pieces(TEXT.tokenizer, ids)[:-1])


def test_an_unfinished_character_is_shown_as_broken_at_the_end() -> None:
    assert pieces(TEXT.tokenizer, byte_ids("ðŁ")) == ["", "", "\ufffd"]


def test_special_and_unknown_tokens_are_no_text() -> None:
    assert pieces(TEXT.tokenizer, [0, 1, 4, 100_000]) == ["", "", "", "", ""]


def test_flushing_twice_gives_nothing_twice() -> None:
    detokenizer = Detokenizer(TEXT.tokenizer, SPECIAL)
    detokenizer.push(byte_ids("ð")[0])
    assert (detokenizer.flush(), detokenizer.flush()) == ("\ufffd", "")


def test_time_per_token_does_not_grow() -> None:
    """Of whole text and of broken characters: 20,000 tokens in less than 30 times the time of 2,000."""
    for token_ids in (TEXT.tokenizer.encode("a knife ", add_special_tokens=False).ids, [255 - 11]):
        times: list[float] = []
        for count in (2_000, 20_000):
            begin = time.process_time()
            pieces(TEXT.tokenizer, token_ids * (count // len(token_ids)))
            times.append(time.process_time() - begin)
        assert times[1] < 30 * times[0]
