"""Rewards in Python, as users write them into a file, and the built-in ones."""

import re
from pathlib import Path

import pytest

from panacea_train.rewards import RewardError, read_reward
from tests.rewards.asked import Heard, prompt

RULES = '''\
"""Rules of a user."""

from fractions import Fraction

from neighbour import LOUD


def loud(prompt, answer):
    return answer.count(LOUD)


def exact(prompt: str, answer: str, line) -> float:
    return float(answer == line.fields["reference"]) + len(line.messages) / 10


def half(prompt, answer, share=Fraction(1, 2)):
    return share


def of_prompt(*texts):
    return len(texts[0])


def fails(prompt, answer):
    if answer == "bad":
        return 1 / 0
    return 1


def gives(prompt, answer):
    return eval(answer)


def leaves(prompt, answer):
    raise SystemExit


def one(answer):
    return 1


def four(prompt, answer, line, more):
    return 1


def keyword(prompt, answer, *, limit):
    return 1


async def later(prompt, answer):
    return 1


LIMIT = 3
'''


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text('LOUD = "!"\n', "utf-8")
    file = tmp_path / "rules.py"
    file.write_text(RULES, "utf-8")
    return file


def scores(spec: str, *answers: str) -> list[float]:
    return read_reward(spec).score([prompt("How?")] * len(answers), answers, Heard())


def test_a_function_of_prompt_and_answer_scores_each_answer(rules: Path) -> None:
    assert scores(f"python:{rules}:loud", "no", "yes!", "yes!!") == [0.0, 1.0, 2.0]


def test_less_is_better_with_a_minus_in_front(rules: Path) -> None:
    assert scores(f"-python:{rules}:loud", "no", "yes!") == [0.0, -1.0]


def test_a_function_with_a_third_parameter_sees_the_whole_line(rules: Path) -> None:
    heard = Heard()
    prompts = [prompt("2 + 2?", reference="4"), prompt("2 + 3?", "You add.", reference="5")]
    reward = read_reward(f"python:{rules}:exact")
    assert reward.score(prompts, ["4", "4"], heard) == pytest.approx([1.1, 0.2])
    assert heard.calls == [1, 1]


def test_a_third_parameter_with_a_default_keeps_it(rules: Path) -> None:
    assert scores(f"python:{rules}:half", "x") == [0.5]


def test_a_function_of_any_number_of_texts_gets_two(rules: Path) -> None:
    assert scores(f"python:{rules}:of_prompt", "x") == [4.0]


def test_a_module_is_imported_by_its_name_from_where_the_command_was_started(
    rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(rules.parent)
    assert scores("python:rules:loud", "!!!") == [3.0]


def test_a_file_runs_once_for_all_its_functions(rules: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rules.write_text('print("loading")\n' + RULES, "utf-8")
    scores(f"python:{rules}:loud", "x")
    scores(f"python:{rules}:half", "x")
    assert capfd.readouterr().out == "loading\n"


def test_numbers_of_other_types_are_numbers(rules: Path) -> None:
    numpy, torch = "__import__('numpy').float32(2.5)", "__import__('torch').tensor(2.5)"
    assert scores(f"python:{rules}:gives", "True", numpy, torch, "10**20") == [1.0, 2.5, 2.5, 1e20]


@pytest.mark.parametrize(
    "answer",
    [
        "None",
        "'3'",
        "'nan'",
        "float('nan')",
        "float('inf')",
        "-float('inf')",
        "[1]",
        "10**400",
        "1j",
        "__import__('numpy').ones(2)",
        "__import__('torch').ones(2)",
    ],
)
def test_what_is_no_finite_number_is_an_error(rules: Path, answer: str) -> None:
    with pytest.raises(RewardError, match=r"rules.py:gives gave .*not a finite number.*to \"How\?\"") as raised:
        scores(f"python:{rules}:gives", "1", answer)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300 + len(str(rules))


def test_what_a_function_raises_is_told_with_its_line_and_the_answer(rules: Path) -> None:
    line = RULES.splitlines().index("        return 1 / 0") + 1
    expected = (
        f'rules.py:fails failed: ZeroDivisionError: division by zero (rules.py, line {line}), for the answer "bad"'
    )
    with pytest.raises(RewardError, match=re.escape(expected)):
        scores(f"python:{rules}:fails", "good", "bad")


def test_a_line_without_the_field_is_told_as_the_function_tells_it(rules: Path) -> None:
    with pytest.raises(RewardError, match=r"exact failed: KeyError: 'reference' \(rules.py, line \d+\)"):
        scores(f"python:{rules}:exact", "x")


def test_a_function_that_leaves_does_not_end_the_command(rules: Path) -> None:
    with pytest.raises(RewardError, match="leaves failed: SystemExit"):
        scores(f"python:{rules}:leaves", "x")


@pytest.mark.parametrize("function", ["one", "four", "keyword", "later"])
def test_a_function_of_another_form_is_refused_before_anything_is_scored(rules: Path, function: str) -> None:
    with pytest.raises(RewardError, match=rf"{function} cannot be called as a reward: it must be NAME\(prompt"):
        read_reward(f"python:{rules}:{function}")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("{folder}/none.py:loud", "cannot be imported: FileNotFoundError: no such file"),
        ("{folder}:loud", "cannot be imported: ModuleNotFoundError"),
        ("no.such.module:loud", "no.such.module cannot be imported: ModuleNotFoundError: No module named 'no'"),
        ("{folder}/rules.py:quiet", "rules.py has no function quiet"),
        ("{folder}/rules.py:LIMIT", "has no callable named LIMIT"),
        ("{folder}/rules.py", "does not name a function: write python:FILE.py:function"),
        ("{folder}/rules.py:", "does not name a function"),
        ("{folder}/wrong.py:loud", r"SyntaxError: .* \(wrong.py, line 2\)"),
        (
            "{folder}/broken.py:loud",
            r"broken.py cannot be imported: NameError: name 'undefined' .* \(broken.py, line 3\)",
        ),
        ("{folder}/leaving.py:loud", r"SystemExit: 3 \(leaving.py, line 1\)"),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line(rules: Path, place: str, message: str) -> None:
    (rules.parent / "wrong.py").write_text("x = 1\ndef f(:\n", "utf-8")
    (rules.parent / "broken.py").write_text("\n\nundefined\n", "utf-8")
    (rules.parent / "leaving.py").write_text("raise SystemExit(3)\n", "utf-8")
    for _ in range(2):  # a module that failed once does not count as imported
        with pytest.raises(RewardError, match=message) as raised:
            read_reward(f"python:{place.format(folder=rules.parent)}")
        assert "\n" not in str(raised.value)


def test_a_file_in_the_folder_of_the_user_is_found(rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(rules.parent))
    assert scores("python:~/rules.py:loud", "!") == [1.0]


def test_words_counts_words() -> None:
    assert scores("rule:words", "", "one", "two  words\nor three") == [0.0, 1.0, 4.0]


def test_concise_is_the_papers_formula() -> None:
    # R = 4 up to c = 10 words, then R + 1 - words / c
    assert scores("rule:concise:10", "w " * 10, "w " * 15, "w " * 40, "w " * 60) == [4.0, 3.5, 1.0, -1.0]
    assert scores("rule:concise", "w " * 40, "w " * 60) == [4.0, 3.5]


@pytest.mark.parametrize("spec", ["rule:short", "rule:concise:0", "rule:concise:x", "rule:concise:-3", "rule:words:3"])
def test_a_rule_that_is_not_built_in_is_refused_with_those_that_are(spec: str) -> None:
    with pytest.raises(RewardError, match=f"{spec} is not a built-in rule: choose rule:words, rule:concise or"):
        read_reward(spec)


@pytest.mark.parametrize("spec", ["", "-", "sentiment", "llm:judge", "/path/rules.py"])
def test_an_unknown_kind_is_refused_with_an_example_of_each(spec: str) -> None:
    with pytest.raises(
        RewardError, match=r"is not a reward function; .*python:my_rules.py:politeness, .*rule:concise:40"
    ):
        read_reward(spec)


@pytest.mark.parametrize("spec", ["python", "python:", "rule: "])
def test_a_kind_without_more_is_refused(spec: str) -> None:
    with pytest.raises(RewardError, match=f"{spec} is incomplete; an example: "):
        read_reward(spec)
