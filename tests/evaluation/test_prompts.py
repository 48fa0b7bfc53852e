"""Prompt files: every form is read, and what is wrong is told by file, line and field."""

from pathlib import Path

import pytest

from panacea.errors import ConfigError
from panacea.text.chat_template import ChatMessage
from panacea_train.prompts import Prompt, choose_prompts, read_prompts, with_system


def written(tmp_path: Path, content: str | bytes, name: str = "prompts.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_json_lines_hold_texts_or_conversations_and_whatever_rewards_need(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '\ufeff{"prompt": "How?"}\n\n'
        '{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}], "id": 7}\n'
        '{"prompt": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}, '
        '{"role": "user", "content": "C"}], "reference": ["D"]}\n',
    )
    assert read_prompts(path) == [
        Prompt((ChatMessage("user", "How?"),), {}, 1),
        Prompt((ChatMessage("system", "Be brief."), ChatMessage("user", "Why?")), {"id": 7}, 3),
        Prompt(
            (ChatMessage("user", "A"), ChatMessage("assistant", "B"), ChatMessage("user", "C")), {"reference": ["D"]}, 4
        ),
    ]
    assert [prompt.text for prompt in read_prompts(path)] == ["How?", "Why?", "C"]


def test_a_text_file_has_a_prompt_on_each_line(tmp_path: Path) -> None:
    path = written(tmp_path, 'How?\n\n  {"prompt": "is text here"} \r\n', "prompts.txt")
    assert [(prompt.text, prompt.line) for prompt in read_prompts(path)] == [
        ("How?", 1),
        ('{"prompt": "is text here"}', 3),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "line 2: is not valid JSON: .* at column 2"),
        (b"\xff\xfe", "line 2: is not UTF-8"),
        ('["How?"]', "line 2: is not a JSON object"),
        ('{"question": "How?"}', "line 2: has neither prompt nor messages"),
        (
            '{"prompt": "How?", "messages": [{"role": "user", "content": "How?"}]}',
            "line 2: has both prompt and messages",
        ),
        ('{"prompt": "  "}', r"line 2: prompt\.0\.content: is blank"),
        ('{"prompt": []}', "line 2: prompt: .*at least 1 item"),
        ('{"prompt": 3}', "line 2: prompt: "),
        ('{"messages": "How?"}', "line 2: messages: "),
        ('{"messages": [{"role": "tool", "content": "x"}]}', r"line 2: messages\.0\.role: .*'user'"),
        (
            '{"messages": [{"role": "assistant", "content": "x"}]}',
            "line 2: messages: the last message must be the user's",
        ),
        ('{"prompt": [{"role": "user", "content": "x", "name": "y"}]}', r"line 2: prompt\.0\.name: extra inputs"),
        (r'{"prompt": "\ud800"}', r"line 2: prompt\.0\.content: has half of a character"),
    ],
)
def test_what_is_wrong_is_told_by_line_and_field(tmp_path: Path, line: str | bytes, message: str) -> None:
    content = line if isinstance(line, bytes) else line.encode()
    path = written(tmp_path, b'{"prompt": "good"}\n' + content + b"\n")
    with pytest.raises(ConfigError, match=f"prompts.jsonl, {message}") as raised:
        read_prompts(path)
    assert "\n" not in str(raised.value)


def test_only_the_first_of_many_problems_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, "one\ntwo\nthree\n")
    with pytest.raises(ConfigError, match=r"line 1: is not valid JSON.*\(and 2 more such problems\)"):
        read_prompts(path)


@pytest.mark.parametrize("name", ["prompts.jsonl", "prompts.txt"])
@pytest.mark.parametrize("content", ["", "\n  \n"])
def test_a_file_without_prompts_is_refused(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(ConfigError, match="has no prompts"):
        read_prompts(written(tmp_path, content, name))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl cannot be read: no such file"):
        read_prompts(tmp_path / "nowhere.jsonl")
    with pytest.raises(ConfigError, match="cannot be read: is a directory"):
        read_prompts(tmp_path)


def test_a_limit_takes_prompts_evenly(tmp_path: Path) -> None:
    prompts = read_prompts(written(tmp_path, "\n".join("abcdefghi"), "prompts.txt"))
    assert [prompt.text for prompt in choose_prompts(prompts, 3)] == ["a", "e", "i"]
    assert [prompt.text for prompt in choose_prompts(prompts, 1)] == ["a"]
    assert choose_prompts(prompts, 9) == choose_prompts(prompts, 10) == choose_prompts(prompts, None) == prompts


def test_a_system_prompt_stands_before_all_and_beside_no_other() -> None:
    own = Prompt((ChatMessage("system", "Be long."), ChatMessage("user", "Why?")), {}, 9)
    asked = Prompt((ChatMessage("user", "How?"),), {"id": 7}, 4)
    assert with_system([asked], "Be brief.") == [
        Prompt((ChatMessage("system", "Be brief."), ChatMessage("user", "How?")), {"id": 7}, 4)
    ]
    with pytest.raises(ConfigError, match="the prompt on line 9 has a system message already"):
        with_system([asked, own], "Be brief.")
