"""Training files: what is read from each format, and that what is wrong is named by line and field."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from panacea.errors import ConfigError
from panacea.text.chat_template import ChatMessage, ChatRole
from panacea_train.data import Compared, Scored, Shown, TrainingFile, read_training_file, summarise
from panacea_train.data.encoding import ConversationEncoder
from panacea_train.data.example_building import to_examples
from panacea_train.training_examples import Candidates, Demonstration, PreferencePair
from tests.golden_files import BASE

HELLO = [ChatMessage("user", "Hello")]
SCORED: dict[str, Any] = {
    "prompt": "Hello",
    "answers": [
        {"text": "Hi there!", "scores": {"helpful": 0.9, "concise": 0}},
        {"text": "Hi", "scores": {"helpful": 0.1, "concise": 1}},
    ],
}
PAIR = {"prompt": "Hello", "a": "Hi there!", "b": "Hi", "better": {"helpful": "a", "concise": 0.25}}
SAFE = {
    "prompt": "Hello",
    "response_0": "Hi there!",
    "response_1": "Hi",
    "better_response_id": 1,
    "safer_response_id": 0,
    "is_response_0_safe": True,
}
SHOWN = {"prompt": "Hello", "answer": "Hi", "preference": {"concise": 2, "helpful": 2}}


def read(path: Path, *lines: object, dimensions: tuple[str, ...] = ()) -> TrainingFile:
    """What is read from these lines: bytes and strings as they are, others as JSON."""
    texts = [line if isinstance(line, str | bytes) else json.dumps(line) for line in lines]
    path.joinpath("data.jsonl").write_bytes(b"\n".join(t.encode() if isinstance(t, str) else t for t in texts) + b"\n")
    return read_training_file(path / "data.jsonl", dimensions)


def problems(path: Path, *lines: object, dimensions: tuple[str, ...] = ()) -> list[str]:
    return [str(problem) for problem in read(path, *lines, dimensions=dimensions).problems]


def test_every_format_is_read(tmp_path: Path) -> None:
    chosen = {"prompt": "Hello", "chosen": "Hi", "rejected": "Go", "dimension": "kind", "id": 7, "metadata": {"x": 1}}
    file = read(tmp_path, PAIR, chosen, SAFE, "", SHOWN)
    assert not file.problems
    assert file.dimensions == ("helpful", "concise", "kind", "harmless")
    assert file.records == (
        (1, Compared(HELLO, ("Hi there!", "Hi"), {"helpful": 1.0, "concise": 0.25})),
        (2, Compared(HELLO, ("Hi", "Go"), {"kind": 1.0})),
        (3, Compared(HELLO, ("Hi there!", "Hi"), {"helpful": 0.0, "harmless": 1.0})),
        (5, Shown(HELLO, "Hi", {"concise": 2, "helpful": 2})),
    )
    scores = [{"helpful": 0.9, "concise": 0.0}, {"helpful": 0.1, "concise": 1.0}]
    assert read(tmp_path, SCORED).records == ((1, Scored(HELLO, ["Hi there!", "Hi"], scores)),)


def test_conversations_are_prompts_and_answers_too(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
    line = PAIR | {"prompt": messages, "a": [{"role": "assistant", "content": "Hi there!"}]}
    ((_, record),) = read(tmp_path, b"\xef\xbb\xbf" + json.dumps(line).encode()).records
    assert record.prompt == [ChatMessage("system", "Be kind."), ChatMessage("user", "Hello")]
    assert record == Compared(record.prompt, ("Hi there!", "Hi"), {"helpful": 1.0, "concise": 0.25})


def changed(line: dict[str, Any], *path: str | int, to: Any) -> dict[str, Any]:
    """A copy of `line` with another value at `path`; `to` None takes the field away."""
    copy: Any = json.loads(json.dumps(line))
    *parents, last = path
    place = copy
    for step in parents:
        place = place[step]
    if to is None:
        del place[last]
    else:
        place[last] = to
    return copy  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "line 2: is not valid JSON: "),
        ("[1]", "line 2: is not a JSON object"),
        (b'{"prompt": "\xff"}', "line 2: is not UTF-8"),
        ("[" * 100_000, "line 2: is JSON that cannot be read"),
        ({"prompt": "Hello"}, "line 2: needs one of the fields answers, better, chosen,"),
        (changed(SCORED, "prompt", to=3), "line 2: prompt: input should be a valid list"),
        (changed(SCORED, "prompt", to=" "), "line 2: prompt.0.content: is blank"),
        (changed(SCORED, "prompt", to=[]), "line 2: prompt: value should have at least 1 item"),
        (
            changed(SCORED, "prompt", to=[{"role": "tool", "content": "x"}]),
            "line 2: prompt.0.role: input should be 'system', 'user' or 'assistant'",
        ),
        (
            changed(SCORED, "prompt", to=[{"role": "assistant", "content": "x"}]),
            "line 2: prompt: the last message must be the user's",
        ),
        (changed(SCORED, "answers", to=[]), "line 2: answers: list should have at least 1 item"),
        (changed(SCORED, "answers", 1, "text", to=""), "line 2: answers.1.text: is blank"),
        (changed(SCORED, "answers", 1, "text", to="\ud800"), "line 2: answers.1.text: has half of a character"),
        (
            changed(SCORED, "answers", 1, "scores", "concise", to="1"),
            "line 2: answers.1.scores.concise: input should be a valid number",
        ),
        (
            changed(SCORED, "answers", 1, "scores", "concise", to=True),
            "line 2: answers.1.scores.concise: input should be a valid number",
        ),
        (
            changed(SCORED, "answers", 1, "scores", "concise", to=math.nan),
            "line 2: answers.1.scores.concise: input should be a finite number",
        ),
        (
            changed(SCORED, "answers", 1, "scores", "concise", to=None),
            "line 2: answers.1.scores.concise: is missing: every answer needs a score",
        ),
        (changed(SCORED, "promt", to="x"), "line 2: promt: extra inputs are not permitted"),
        (changed(PAIR, "b", to=None), "line 2: b: field required"),
        (changed(PAIR, "better", "helpful", to="c"), "line 2: better.helpful: input should be a valid number"),
        (changed(PAIR, "better", "helpful", to=1.5), "line 2: better.helpful: input should be less than or equal to 1"),
        (changed(PAIR, "better", "a b", to="a"), "line 2: better.a b: is not a name"),
        (changed(SAFE, "safer_response_id", to=2), "line 2: safer_response_id: input should be 0 or 1"),
        (changed(SAFE, "safer_response_id", to=None), "line 2: safer_response_id: field required"),
        (changed(SHOWN, "preference", to={"concise": -1}), "line 2: preference.concise: input should be greater"),
        (changed(SHOWN, "preference", to={"concise": 0}), "line 2: preference: has no weight above 0"),
    ],
)
def test_what_is_wrong_is_named_by_line_and_field(tmp_path: Path, line: object, expected: str) -> None:
    (problem,) = problems(tmp_path, SCORED, line, SCORED)
    assert problem.startswith(expected)


def test_all_problems_of_a_file_are_found_in_order(tmp_path: Path) -> None:
    found = problems(tmp_path, changed(PAIR, "a", to=1), SCORED, "{", changed(PAIR, "better", "kind", to="a"))
    # The second line lacks a dimension that the fourth brings in.
    assert [text.split(":")[0] for text in found] == ["line 1", "line 2", "line 2", "line 3"]
    assert problems(tmp_path, changed(PAIR, "better", "kind", to="a"), dimensions=("helpful", "concise")) == [
        "line 1: better.kind: is not among the dimensions: helpful, concise"
    ]


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: no such file"):
        read_training_file(tmp_path / "absent.jsonl")
    with pytest.raises(ConfigError, match="has no lines"):
        read(tmp_path, "", " ")


def test_the_summary_counts_each_dimension(tmp_path: Path) -> None:
    tie = changed(PAIR, "better", "helpful", to="tie")
    lines = summarise(read(tmp_path, SCORED, PAIR, tie, {"prompt": "Hello", "answer": "Hi"})).splitlines()
    assert lines[0].endswith("4 lines (1 with scores, 2 pairs, 1 to imitate)")
    assert [line.split() for line in lines[2:4]] == [
        ["helpful", "3", "2", "1", "2"],
        ["concise", "3", "3", "0", "2"],
    ]
    assert lines[4].startswith("2 lines in which two dimensions want different answers")
    alike = changed(PAIR, "better", "concise", to="a")
    assert "In no line do two dimensions" in summarise(read(tmp_path, alike))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(BASE)
    return loaded


def with_template(tokenizer: PreTrainedTokenizerBase, template: str | None) -> ConversationEncoder:
    changed_one: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(BASE)
    changed_one.chat_template = template
    return ConversationEncoder(changed_one)


TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|end|>{{ '\\n' }}{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|assistant|>{% endif %}"


def test_prompt_and_answer_are_the_templates_conversation(tokenizer: PreTrainedTokenizerBase) -> None:
    encoder = ConversationEncoder(tokenizer)
    prompt = encoder.prompt([ChatMessage("system", "Be kind."), ChatMessage("user", "Hello")])
    answer = encoder.answer(prompt, "Hi there!")
    assert tokenizer.decode(prompt.ids) == "<|system|>Be kind.<|end|><|user|>Hello<|end|><|assistant|>"
    assert tokenizer.decode(answer) == "Hi there!<|end|>"
    assert answer[-1] == tokenizer.eos_token_id


CHATML = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role != 'system' or not loop.first %}
        {{- '<|im_start|>' + message.role + '\n' + message['content'] | trim + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
INST = (
    "{{ eos_token }}{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set ns.system = m.content %}{% continue %}{% elif m.role == 'user' %}"
    "{{ '[INST] ' + (ns.system + '\\n\\n' if ns.system and loop.last else '') + m.content + ' [/INST]' }}"
    "{% else %}{% generation %}{{ m.content + eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
)
NAMED = "{{ bos_token }}{{ strftime_now('%Y') }}{{ messages | tojson }}{{ tools is none }}{{ pad_token }}"


@pytest.mark.parametrize("template", [TURNS + PROMPT, CHATML, INST, NAMED, {"default": CHATML, "tool_use": "x"}])
@pytest.mark.parametrize("content", ["Hello", " two\n\nlines\t", "Grüße, 日本 🥚", "<|end|> <|im_end|>", ""])
def test_prompts_are_those_of_transformers(template: Any, content: str) -> None:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(BASE)
    tokenizer.chat_template = template
    tokenizer.add_special_tokens({"bos_token": "<|user|>"})
    roles: tuple[ChatRole, ...] = ("system", "user", "assistant", "user")
    messages = [ChatMessage(role, f"{content}{number}") for number, role in enumerate(roles)]
    turns = [{"role": message.role, "content": message.content} for message in messages]
    prompt = ConversationEncoder(tokenizer).prompt(messages)
    assert prompt.text == tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert prompt.ids == tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)


def test_what_a_template_writes_after_the_end_of_a_turn_is_not_learned(tokenizer: PreTrainedTokenizerBase) -> None:
    encoder = with_template(tokenizer, TURNS + PROMPT)
    prompt = encoder.prompt(HELLO)
    assert tokenizer.decode(prompt.ids) == "<|user|>Hello<|end|>\n<|assistant|>"
    assert tokenizer.decode(encoder.answer(prompt, " Hi ")) == "Hi<|end|>"


def test_a_template_that_rewrites_the_prompt_leaves_the_answer_as_it_is(tokenizer: PreTrainedTokenizerBase) -> None:
    encoder = with_template(tokenizer, "{% if not add_generation_prompt %}Once: {% endif %}" + TURNS + PROMPT)
    assert tokenizer.decode(encoder.answer(encoder.prompt(HELLO), "Hi")) == "Hi<|end|>"


def test_an_end_inside_of_an_answer_is_not_its_end(tokenizer: PreTrainedTokenizerBase) -> None:
    encoder = with_template(tokenizer, "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}" + PROMPT)
    assert tokenizer.decode(encoder.answer(encoder.prompt(HELLO), "Hi<|end|> there")) == "Hi<|end|> there<|end|>"


def test_a_model_without_template_gets_the_text_itself(tokenizer: PreTrainedTokenizerBase) -> None:
    encoder = with_template(tokenizer, None)
    prompt = encoder.prompt(HELLO)
    assert tokenizer.decode(prompt.ids) == "Hello"
    assert tokenizer.decode(encoder.answer(prompt, " there")) == " there<|end|>"
    with pytest.raises(ValueError, match="no chat template"):
        encoder.prompt([*HELLO, ChatMessage("assistant", "Hi"), *HELLO])


def test_a_conversation_that_the_template_refuses_is_an_error(tokenizer: PreTrainedTokenizerBase) -> None:
    encoder = with_template(tokenizer, "{{ raise_exception('No system messages here') }}")
    with pytest.raises(ValueError, match="refuses this conversation: No system messages here"):
        encoder.prompt(HELLO)


def test_records_become_examples_for_each_objective(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    encoder = ConversationEncoder(tokenizer)
    dimensions = ("helpful", "harmless", "concise")
    partly = changed(PAIR, "better", "harmless", to="tie")
    del partly["better"]["concise"]
    records = [record for _, record in read(tmp_path, partly, SHOWN).records]
    ((_, scored),) = read(tmp_path, SCORED).records
    prompt = encoder.prompt(HELLO)
    a, b = encoder.answer(prompt, "Hi there!"), encoder.answer(prompt, "Hi")

    (pair,) = to_examples(records[0], dimensions, encoder, "dpo")
    assert isinstance(pair, PreferencePair)
    assert (pair.prompt_ids, pair.answer_a_ids, pair.answer_b_ids) == (prompt.ids, a, b)
    assert pair.probabilities == pytest.approx([1.0, 0.5, math.nan], nan_ok=True)
    (candidates,) = to_examples(records[0], dimensions, encoder, "sft")
    assert isinstance(candidates, Candidates)
    assert candidates.labelled == [True, True, False]
    assert candidates.answers_ids == [a, b]
    assert [rewards[:2] for rewards in candidates.rewards] == [(1.0, 0.5), (0.0, 0.5)]

    assert to_examples(scored, ("helpful", "concise"), encoder, "sft") == [
        Candidates(prompt.ids, [a, b], [(0.9, 0.0), (0.1, 1.0)])
    ]
    assert to_examples(scored, ("helpful", "concise"), encoder, "dpo") == [PreferencePair(prompt.ids, a, b, [1.0, 0.0])]
    (soft,) = to_examples(scored, ("helpful", "concise"), encoder, "dpo", label_temperature=0.4)
    assert isinstance(soft, PreferencePair)
    assert soft.probabilities == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2.5))])
    assert to_examples(records[1], dimensions, encoder, "dpo") == [Demonstration(prompt.ids, b, [0.5, 0.0, 0.5])]


def test_answers_with_equal_scores_are_no_pair(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    same = SCORED | {"answers": [*SCORED["answers"], SCORED["answers"][0]]}
    ((_, record),) = read(tmp_path, same).records
    pairs = to_examples(record, ("helpful", "concise"), ConversationEncoder(tokenizer), "dpo")
    assert len(pairs) == 2
