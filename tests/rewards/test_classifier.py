"""Rewards of transformers' classifiers against the same models called for one sequence at a time."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from panacea.errors import ConfigError
from panacea_train.rewards import RewardError, read_reward
from tests.rewards.asked import Heard, prompt
from tests.rewards.classifiers import (
    ANSWER,
    POSITIONS,
    QUESTION,
    SIZES,
    bert,
    change_json,
    gpt2,
    llama,
    logits,
    pair_logits,
    roberta,
    text_logits,
)

QUESTIONS = [QUESTION, "how soft ?", "how do i put an egg in water ?", QUESTION, "egg ?", "no"]
ANSWERS = [ANSWER, "no", "so . so . so . so", "", "how", "eight eight eight"]
"""Of very different lengths, in no order; one is empty."""


def scores(spec: str, questions: list[str], answers: list[str]) -> list[float]:
    heard = Heard()
    result = read_reward(spec).score([prompt(question) for question in questions], answers, heard)
    assert heard.total == len(answers)
    return result


@pytest.fixture(params=[1, 2, 64])
def batches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of so many sequences."""
    monkeypatch.setattr("panacea_train.rewards.classifier_reward.ROWS", request.param)


@pytest.mark.slow
@pytest.mark.usefixtures("batches")
@pytest.mark.parametrize("family", [bert, roberta, gpt2])
def test_pairs_in_batches_score_as_each_alone_without_padding(tmp_path: Path, family: Callable[[Path], Path]) -> None:
    folder = family(tmp_path)
    expected = [pair_logits(folder, *pair)[0].item() for pair in zip(QUESTIONS, ANSWERS, strict=True)]
    assert scores(f"model:{folder}", QUESTIONS, ANSWERS) == pytest.approx(expected, abs=1e-5)
    assert torch.tensor(expected).std() > 0.05  # five decimals tell the answers apart


@pytest.mark.slow
@pytest.mark.usefixtures("batches")
@pytest.mark.parametrize("pad", ["<|pad|>", "<|end|>", None])
def test_conversations_in_batches_score_as_each_alone_without_padding(tmp_path: Path, pad: str | None) -> None:
    """Also where conversations end with what the model takes for padding, and where it has no padding token."""
    folder = llama(tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    change_json(folder / "config.json", pad_token_id=None if pad is None else tokenizer.token_to_id(pad))
    texts = [f"<|user|>{q}<|end|><|assistant|>{a}<|end|>" for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    expected = [text_logits(folder, text)[0].item() for text in texts]
    assert scores(f"model:{folder}", QUESTIONS, ANSWERS) == pytest.approx(expected, abs=1e-5)
    assert torch.tensor(expected).std() > 0.05


def test_the_chat_template_gets_the_whole_conversation(tmp_path: Path) -> None:
    folder = llama(tmp_path)
    asked = prompt("Why?", "Be brief.")
    expected = text_logits(folder, "<|system|>Be brief.<|end|><|user|>Why?<|end|><|assistant|>So.<|end|>")[0].item()
    assert read_reward(f"model:{folder}").score([asked], ["So."], Heard()) == pytest.approx([expected], abs=1e-5)


def test_a_tokenizer_of_older_files_is_read(tmp_path: Path) -> None:
    folder = bert(tmp_path)
    words = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    expected = pair_logits(folder, QUESTION, ANSWER)[0].item()
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in sorted(words, key=words.__getitem__)), "utf-8")
    assert scores(f"model:{folder}", [QUESTION], [ANSWER]) == pytest.approx([expected], abs=1e-5)


def test_less_is_better_with_a_minus_in_front(tmp_path: Path) -> None:
    folder = bert(tmp_path)
    (plain,) = scores(f"model:{folder}", [QUESTION], [ANSWER])
    assert scores(f"-model:{folder}", [QUESTION], [ANSWER]) == [-plain]


@pytest.mark.parametrize("family", [bert, roberta, llama])
def test_a_classifier_reads_the_answer_alone(tmp_path: Path, family: Callable[[Path], Path]) -> None:
    folder = family(tmp_path)
    asked = [prompt(QUESTION, "so ."), prompt("no")]
    expected = text_logits(folder, ANSWER)[0].item()
    assert read_reward(f"classifier:{folder}").score(asked, [ANSWER] * 2, Heard()) == pytest.approx(
        [expected] * 2, abs=1e-5
    )


LABELS = {"id2label": {0: "rude", 1: "polite", 2: "1"}, "label2id": {"rude": 0, "polite": 1, "1": 2}}


@pytest.mark.parametrize(("label", "output"), [("rude", 0), ("polite", 1), ("1", 2), ("0", 0), ("2", 2)])
@pytest.mark.parametrize("problem", [None, "single_label_classification"])
def test_one_of_several_labels_is_its_log_odds(tmp_path: Path, label: str, output: int, problem: str | None) -> None:
    folder = bert(tmp_path, num_labels=3, problem_type=problem, **LABELS)
    probabilities = pair_logits(folder, QUESTION, ANSWER).softmax(0)
    expected = torch.log(probabilities[output] / (1 - probabilities[output])).item()
    assert scores(f"model:{folder}#{label}", [QUESTION], [ANSWER]) == pytest.approx([expected], abs=1e-5)


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_independent_outputs_are_read_as_they_are(tmp_path: Path, problem: str) -> None:
    folder = bert(tmp_path, num_labels=3, problem_type=problem, **LABELS)
    expected = pair_logits(folder, QUESTION, ANSWER)[1].item()
    assert scores(f"model:{folder}#polite", [QUESTION], [ANSWER]) == pytest.approx([expected], abs=1e-5)


def test_a_label_of_certain_probability_keeps_its_distance(tmp_path: Path) -> None:
    folder = bert(tmp_path, num_labels=2)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"].zero_()
    weights["classifier.bias"].copy_(torch.tensor([-200.0, 300.0]))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert scores(f"model:{folder}#LABEL_0", ["egg ?"], ["no"]) == [-500.0]
    assert scores(f"model:{folder}#LABEL_1", ["egg ?"], ["no"]) == [500.0]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("", "has 3 outputs: append #LABEL, one of rude, polite, 1"),
        ("#kind", "has no output kind: choose one of rude, polite, 1"),
        ("#3", "has no output 3: choose one of rude, polite, 1"),
        ("#-1", "has no output -1"),
    ],
)
def test_a_label_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path, label: str, message: str) -> None:
    folder = bert(tmp_path, num_labels=3, **LABELS)
    with pytest.raises(RewardError, match=message):
        read_reward(f"model:{folder}{label}")


def test_weights_in_16_bits_are_computed_in_float32_on_a_cpu(tmp_path: Path) -> None:
    folder = bert(tmp_path)
    weights = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    change_json(folder / "config.json", dtype="bfloat16")
    expected = pair_logits(folder, QUESTION, ANSWER)[0].item()
    assert read_reward(f"model:{folder}", "cpu").score([prompt(QUESTION)], [ANSWER], Heard()) == pytest.approx(
        [expected], abs=1e-5
    )


@pytest.mark.parametrize(
    ("question", "answer", "read_question", "read_answer"),
    [
        ("how do i boil an egg ?", "put it in water", "boil an egg ?", "put it in water"),  # 14 tokens with 3 special
        ("egg ?", "put it in water for eight minutes", "?", "put it in water for eight minutes"),
        ("egg ?", "put it in water for eight minutes .", "", "put it in water for eight minutes ."),
        ("egg ?", "so so put it in water for eight minutes .", "", "put it in water for eight minutes ."),
    ],
)
def test_of_a_pair_that_is_too_long_the_beginning_is_left_out(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    question: str,
    answer: str,
    read_question: str,
    read_answer: str,
) -> None:
    folder = bert(tmp_path, max_position_embeddings=11)
    expected = pair_logits(folder, read_question, read_answer)[0].item()
    short = pair_logits(folder, "egg ?", "no")[0].item()
    found = scores(f"model:{folder}", [question, "egg ?"], [answer, "no"])
    assert found == pytest.approx([expected, short], abs=1e-5)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"model:{folder} reads 11 tokens at most: the beginning of 1 of 2 conversations was left out"
    ]


def test_what_just_fits_is_read_in_full_and_nobody_is_warned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = bert(tmp_path, max_position_embeddings=len([*QUESTION.split(), *ANSWER.split()]) + 3)
    expected = pair_logits(folder, QUESTION, ANSWER)[0].item()
    assert scores(f"model:{folder}", [QUESTION], [ANSWER]) == pytest.approx([expected], abs=1e-5)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_positions_that_are_counted_from_behind_the_padding_are_no_room(tmp_path: Path) -> None:
    """RoBERTa has 514 positions for 512 tokens; the 513th would be read from outside the table."""
    folder = roberta(tmp_path)
    assert (
        len(load_file(folder / "model.safetensors")["roberta.embeddings.position_embeddings.weight"]) == POSITIONS + 2
    )
    long = "so " * (POSITIONS - 4)  # besides four special tokens
    expected = pair_logits(folder, "", long)[0].item()
    assert scores(f"model:{folder}", ["egg ?"], [long]) == pytest.approx([expected], abs=1e-5)


def test_the_tokenizers_own_limit_counts_too(tmp_path: Path) -> None:
    folder = bert(tmp_path)
    change_json(folder / "tokenizer_config.json", model_max_length=6)
    expected = pair_logits(folder, "?", "so no")[0].item()
    assert scores(f"model:{folder}", ["egg ?"], ["so no"]) == pytest.approx([expected], abs=1e-5)


@pytest.mark.parametrize("keeps_first", [False, True])
def test_of_a_long_conversation_the_end_is_read_behind_the_token_that_begins_all(
    tmp_path: Path, *, keeps_first: bool
) -> None:
    folder = llama(tmp_path, max_position_embeddings=30)
    if keeps_first:  # the template's first token, for once, is what the tokenizer says every sequence begins with
        change_json(folder / "tokenizer_config.json", bos_token="<|user|>")
    text = f"<|user|>{QUESTION * 3}<|end|><|assistant|>{ANSWER}<|end|>"
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    assert len(ids) > 40
    expected = logits(folder, [ids[0], *ids[-29:]] if keeps_first else ids[-30:])[0].item()
    assert scores(f"model:{folder}", [QUESTION * 3], [ANSWER]) == pytest.approx([expected], abs=1e-5)


def test_a_model_without_template_refuses_conversations(tmp_path: Path) -> None:
    reward = read_reward(f"model:{bert(tmp_path)}")
    with pytest.raises(RewardError, match=r'has no chat template, .* 2 messages like the one that ends with "egg"'):
        reward.score([prompt("egg", "so .")], ["no"], Heard())


def test_what_a_template_says_against_a_conversation_is_told(tmp_path: Path) -> None:
    folder = llama(tmp_path)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no system messages') }}", "utf-8")
    reward = read_reward(f"model:{folder}")
    with pytest.raises(RewardError, match='chat template that fails: no system messages, for the answer "no" to "egg"'):
        reward.score([prompt("egg", "so .")], ["no"], Heard())


def test_an_answer_without_tokens_is_an_error_where_the_model_reads_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match='has no tokens to read for the answer "" to "egg"'):
        scores(f"classifier:{gpt2(tmp_path)}", ["egg"], [""])


def test_scores_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    folder = bert(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RewardError, match='gave nan, which is not a finite number, for the answer "no" to "egg"'):
        scores(f"model:{folder}", ["egg"], ["no"])


def test_what_torch_says_against_a_model_is_told(tmp_path: Path) -> None:
    folder = bert(tmp_path)
    tokenizer = folder / "tokenizer.json"  # of a larger vocabulary than the model's
    tokenizer.write_text(tokenizer.read_text("utf-8").replace('"soft": ', '"soft": 10'), "utf-8")
    with pytest.raises(RewardError, match="cannot be computed: index out of range"):
        scores(f"model:{folder}", ["egg"], ["soft"])


@pytest.mark.parametrize(("rows", "tokens", "expected"), [(3, 100, [3, 2]), (64, 12, [2, 2, 1]), (64, 5, [1] * 5)])
def test_a_forward_holds_so_many_rows_and_tokens_and_each_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, tokens: int, expected: list[int]
) -> None:
    monkeypatch.setattr("panacea_train.rewards.classifier_reward.ROWS", rows)
    monkeypatch.setattr("panacea_train.rewards.classifier_reward.TOKENS", tokens)
    heard = Heard()
    read_reward(f"model:{bert(tmp_path)}").score([prompt("egg ?")] * 5, ["no"] * 5, heard)  # six tokens each
    assert heard.calls == expected


def test_a_model_computes_with_the_threads_of_when_it_was_loaded_and_leaves_the_others(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    during: list[int] = []
    try:
        torch.set_num_threads(before + 2)
        reward = read_reward(f"model:{bert(tmp_path)}")
        torch.set_num_threads(before)
        reward.score([prompt("egg ?")], ["no"], lambda _: during.append(torch.get_num_threads()))
        assert (during, torch.get_num_threads()) == ([before + 2], before)
    finally:
        torch.set_num_threads(before)


def test_no_answers_have_no_scores(tmp_path: Path) -> None:
    assert scores(f"model:{bert(tmp_path)}", [], []) == []


def _causal(folder: Path) -> None:
    """A language model, to which transformers would give a random head."""
    LlamaForCausalLM(LlamaConfig(vocab_size=22, **SIZES)).save_pretrained(folder)


def _encoder(folder: Path) -> None:
    BertModel(BertConfig(vocab_size=22, **SIZES)).save_pretrained(folder)


def _half_a_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _more_labels(folder: Path) -> None:
    change_json(folder / "config.json", id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1})


def _pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _truncated(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100])


def _adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}", "utf-8")


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _unknown(folder: Path) -> None:
    change_json(folder / "config.json", model_type="clever")


def _picture_model(folder: Path) -> None:
    change_json(folder / "config.json", model_type="vit")


def _own_code(folder: Path) -> None:
    maps = {"AutoConfig": "judge.Config", "AutoModelForSequenceClassification": "judge.Judge"}
    change_json(folder / "config.json", model_type="clever", auto_map=maps)
    (folder / "judge.py").write_text("raise SystemExit('this code was run')", "utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_causal, r"is not a trained classifier: the tensor score.weight is missing"),
        (_encoder, r"is not a trained classifier: the tensor classifier.bias is missing"),
        (_half_a_head, r"is not a trained classifier: the tensor classifier.bias is missing"),
        (_more_labels, r"is damaged: its classifier.bias is \(1,\), its config says \(2,\)"),
        (_pickled, r"cannot be loaded: .*no file named model.safetensors"),
        (_truncated, r"cannot be loaded: Error while deserializing header"),
        (_no_tokenizer, r"has no tokenizer: none of the files tokenizer.json, vocab.txt"),
        (_adapter, r"is an adapter: merge it"),
        (_no_config, r"is not a model: config.json is missing"),
        (_unknown, r"cannot be loaded: .*model type `clever`"),
        (_picture_model, r"cannot be loaded: Unrecognized configuration class"),
        (_own_code, r"cannot be loaded: .*custom code"),
    ],
)
def test_what_is_no_trained_classifier_is_refused_in_one_line(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(bert(tmp_path / "model"))
    with pytest.raises(RewardError, match=message) as raised:
        read_reward(f"model:{tmp_path / 'model'}")
    assert "\n" not in str(raised.value)


def test_a_model_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="some/judge is not a folder and not in the hub's cache"):
        read_reward("model:some/judge#good")
    with pytest.raises(ConfigError, match="is neither a folder nor a hub id"):
        read_reward(f"model:{tmp_path}/none")


def test_a_device_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RewardError, match="cannot run on CUDA: torch finds no CUDA device"):
        read_reward(f"model:{bert(tmp_path)}", "cuda")
