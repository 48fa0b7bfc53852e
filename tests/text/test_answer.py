"""An answer as its tokens arrive: text, stop strings, log probabilities, the end."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panacea.engine.outputs import FinishReason, TokenOutput
from panacea.text import Answer, Piece
from panacea.text.vocabulary import Vocabulary
from tests.text.tiny import TEXT, added_token, byte_ids, golden_tokenizer_with, sentencepiece_tokenizer

EOS = 1


def ids(text: str) -> list[int]:
    return TEXT.tokenizer.encode(text, add_special_tokens=False).ids


def outputs(token_ids: list[int], end: FinishReason | None = None) -> list[TokenOutput]:
    last = len(token_ids) - 1
    return [
        TokenOutput("", token_id, end if index == last else None, -float(index), ((token_id, -1.0),))
        for index, token_id in enumerate(token_ids)
    ]


def run(answer: Answer, tokens: list[TokenOutput]) -> list[Piece]:
    pieces: list[Piece] = []
    for token in tokens:
        pieces.append(answer.push(token))
        if pieces[-1].finish_reason:
            break
    return pieces


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def reported(pieces: list[Piece]) -> bytes:
    return b"".join(logprob.chosen.token for piece in pieces for logprob in piece.logprobs)


def test_an_end_token_is_no_part_of_the_text() -> None:
    pieces = run(Answer(TEXT), outputs([*ids("a knife"), EOS], "stop"))
    assert text_of(pieces) == "a knife"
    assert (pieces[-1].text, pieces[-1].finish_reason) == ("", "stop")


def test_an_end_token_has_a_log_probability_at_the_end_of_the_text() -> None:
    """lm-eval's slices of echoed prompts lose the last real token without it."""
    pieces = run(Answer(TEXT), outputs([*ids("a knife"), EOS], "stop"))
    assert reported(pieces) == b"a knife<|end|>"
    (end,) = pieces[-1].logprobs
    assert (end.chosen.logprob, end.start) == (-float(len(pieces) - 1), len("a knife"))
    broken = run(Answer(TEXT), outputs([*byte_ids("ðŁ"), EOS], "stop"))
    assert [logprob.start for logprob in broken[-1].logprobs] == [0, 0, len(text_of(broken))]


def test_a_stop_token_that_is_a_word_is_no_part_of_the_text_either() -> None:
    pieces = run(Answer(TEXT), outputs(ids("a knife"), "stop"))
    assert text_of(pieces) == TEXT.tokenizer.decode(ids("a knife")[:-1])


def test_the_last_token_before_the_limit_is() -> None:
    pieces = run(Answer(TEXT), outputs(ids("a knife"), "length"))
    assert (text_of(pieces), pieces[-1].finish_reason) == ("a knife", "length")


def test_a_broken_character_at_the_end_is_shown() -> None:
    broken = byte_ids("ðŁ")
    assert text_of(run(Answer(TEXT), outputs(broken, "length"))) == "\ufffd"
    assert text_of(run(Answer(TEXT), outputs([*broken, EOS], "stop"))) == "\ufffd"


@pytest.mark.parametrize("end", ["stop", "length"])
def test_the_beginning_of_a_stop_string_is_shown_when_nothing_follows(end: FinishReason) -> None:
    tokens = [*ids("a kn"), EOS] if end == "stop" else ids("a kn")
    pieces = run(Answer(TEXT, ["knife"]), outputs(tokens, end))
    assert (text_of(pieces), pieces[-1].finish_reason) == ("a kn", end)


def test_a_stop_string_ends_the_answer_over_several_tokens() -> None:
    pieces = run(Answer(TEXT, ["harp"]), outputs(ids("How do I sharpen a knife?")))
    assert (text_of(pieces), pieces[-1].finish_reason) == ("How do I s", "stop")


def test_a_stop_string_wins_over_the_limit() -> None:
    assert run(Answer(TEXT, ["knife"]), outputs(ids("a knife"), "length"))[-1].finish_reason == "stop"


def test_stop_strings_count_only_behind_the_least_number_of_tokens() -> None:
    tokens = ids("a knife, a knife")
    early = len(ids("a knife"))
    assert text_of(run(Answer(TEXT, ["knife"], early), outputs(tokens))) == "a knife, a "
    assert text_of(run(Answer(TEXT, ["knife"], early - 1), outputs(tokens))) == "a "


def test_log_probabilities_come_with_the_text_of_their_tokens() -> None:
    pieces = run(Answer(TEXT), outputs([*ids("a"), *byte_ids("ðŁĺĢ"), *ids("b")], "length"))
    assert [(piece.text, len(piece.logprobs)) for piece in pieces if piece.text or piece.logprobs] == [
        ("a", 1),
        ("\U0001f600", 4),
        ("b", 1),
    ]
    assert pieces[0].logprobs[0].chosen == (b"a", 0.0)
    assert pieces[0].logprobs[0].top == ((b"a", -1.0),)


@given(st.lists(st.integers(5, 353), min_size=1, max_size=40))
def test_log_probabilities_tell_the_texts_bytes(token_ids: list[int]) -> None:
    pieces = run(Answer(TEXT), outputs(token_ids, "length"))
    assert reported(pieces).decode(errors="replace") == text_of(pieces)


@given(st.text(max_size=30))
def test_log_probabilities_tell_where_in_the_text_their_tokens_begin(text: str) -> None:
    pieces = run(Answer(TEXT), outputs(ids(text), "length"))
    logprobs = [logprob for piece in pieces for logprob in piece.logprobs]
    said = b""
    for logprob in logprobs:
        assert logprob.start == len(said.decode(errors="ignore"))
        said += logprob.chosen.token
    assert said.decode() == text_of(pieces)


def test_tokens_cut_off_by_a_stop_string_are_reported_at_the_end_of_the_text() -> None:
    tokens = ids("How do I sharpen a knife?")
    pieces = run(Answer(TEXT, [" sharpen"]), outputs(tokens))
    assert reported(pieces) == b"How do I sharpen"
    assert pieces[-1].logprobs[-1].start == len("How do I")


@given(
    st.lists(st.one_of(st.integers(5, 353), st.integers(0, 4)), min_size=1, max_size=30),
    st.sampled_from(["stop", "length"]),
    st.booleans(),
    st.lists(st.sampled_from(["a", "e", " t", "\ufffd", "ing"]), max_size=2),
    st.integers(0, 10),
)
def test_an_answer_has_a_log_probability_for_each_of_its_tokens(
    token_ids: list[int], end: FinishReason, completes: bool, stops: list[str], min_tokens: int
) -> None:
    tokens = outputs(token_ids, end)
    tokens[-1] = replace(tokens[-1], completes=completes)
    pieces = run(Answer(TEXT, stops, min_tokens), tokens)
    logprobs = [logprob for piece in pieces for logprob in piece.logprobs]
    assert [logprob.chosen.logprob for logprob in logprobs] == [-float(index) for index in range(len(pieces))]
    assert len(logprobs) == sum(piece.tokens for piece in pieces)
    starts = [logprob.start for logprob in logprobs]
    assert starts == sorted(starts)
    assert starts[-1] <= len(text_of(pieces))


def test_a_token_cut_in_two_by_a_stop_string_is_reported() -> None:
    assert TEXT.tokenizer.decode(ids("a knife")[-1:]) == " knife"
    assert reported(run(Answer(TEXT, ["if"]), outputs(ids("a knife")))) == b"a knife"


def test_an_answer_goes_on_where_its_context_ends() -> None:
    text = replace(TEXT, tokenizer=sentencepiece_tokenizer(), vocabulary=Vocabulary(sentencepiece_tokenizer()))
    the, knife = (text.tokenizer.get_vocab()[word] for word in ("\u2581the", "\u2581knife"))
    assert text_of(run(Answer(text), outputs([knife], "length"))) == "knife"
    assert text_of(run(Answer(text, context=[the]), outputs([knife], "length"))) == " knife"


def test_without_log_probabilities_there_are_none() -> None:
    assert Answer(TEXT).push(TokenOutput("", ids("a")[0])).logprobs == ()


def test_bytes_of_sentencepiece_tokens() -> None:
    tokenizer = sentencepiece_tokenizer()
    vocabulary = Vocabulary(tokenizer)
    known = tokenizer.get_vocab()
    found = [vocabulary.token_bytes(known[name]) for name in ("\u2581knife", "<0xF0>", "\u00e9", "<unk>")]
    assert found == [b" knife", b"\xf0", "\u00e9".encode(), b"<unk>"]
    assert vocabulary.special_ids == {0}


def test_bytes_of_added_and_unknown_tokens() -> None:
    tokenizer = golden_tokenizer_with(added_tokens=[added_token(354, "Ġé", special=False)])
    vocabulary = Vocabulary(tokenizer)
    assert vocabulary.token_bytes(354) == "Ġé".encode()
    assert vocabulary.token_bytes(99_999) == b""
    assert vocabulary.special_ids == frozenset()


def test_bytes_of_all_tokens_are_those_of_the_decoder() -> None:
    for token_id in range(5, TEXT.tokenizer.get_vocab_size()):
        assert TEXT.vocabulary.token_bytes(token_id).decode(errors="replace") == TEXT.tokenizer.decode([token_id])
