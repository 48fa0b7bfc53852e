"""`panacea eval` as a user starts it: folders, tables, and one clear line for whatever is wrong."""

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest

from panacea.engine.engine import Engine
from panacea.engine.outputs import TokenOutput
from panacea_commands import evaluation_exam
from panacea_commands import main as cli
from panacea_train.evaluation import read_run, summarise
from tests.command import help_of
from tests.golden_files import ADAPTER, BASE

RULES = """
def letters(prompt, answer):
    return answer.count(prompt[0].lower())

def wanted(prompt, answer, line):
    return line.fields["points"] * len(answer)

def broken(prompt, answer):
    return float("nan")
"""
WORDS = "rule:words"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user works."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # a file of rewards may import its neighbours, also later
    (tmp_path / "rules.py").write_text(RULES, "utf-8")
    lines = [{"prompt": f"{word} a knife?", "points": i} for i, word in enumerate(("Sharpen", "Clean", "Buy"), 1)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    shutil.copytree(ADAPTER, tmp_path / "adapter")
    return tmp_path


def panacea_eval(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["panacea", "eval", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    code = ended.value.code
    assert isinstance(code, int)
    return code


def rewards(helpful: str = WORDS, harmless: str = WORDS, concise: str = f"-{WORDS}") -> list[str]:
    named = {"helpful": helpful, "harmless": harmless, "concise": concise}
    return [part for name, spec in named.items() for part in ("--reward", f"{name}={spec}")]


GOLDEN = ["--model", BASE, "--adapter", "adapter", "--prompts", "prompts.jsonl", "--max-tokens", 8, "--grid", 1]


@pytest.mark.slow
def test_a_run_from_prompts_to_report(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*GOLDEN, *rewards("python:rules.py:letters", "python:rules.py:wanted"), "--samples", 2]
    arguments += ["--temperature", 1.2, "--temperature", 0, "--name", "mine", "--install", "--out", "out"]
    assert panacea_eval(*arguments, monkeypatch=monkeypatch) == 0
    said = capsys.readouterr()
    assert "3 preferences x 3 prompts x 3 answers = 27 answers" in said.err
    assert "Report: out/report.html" in said.err
    assert "Spearman: harmless" in said.out
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "answers.jsonl",
        "evaluation.json",
        "points.csv",
        "report.html",
    ]
    run = read_run(folder / "out")
    assert run.answers is not None
    assert run.evaluation.model == "mine"
    for record in run.answers:
        points = record.prompt_index + 1
        letter = record.prompt[0].lower()
        assert record.rewards == (record.text.count(letter), points * len(record.text), -len(record.text.split()))
    for sweep in run.evaluation.sweeps:
        chosen = [point.preference for point in sweep.points]
        corner = run.evaluation.reference_point
        again = summarise(run.evaluation.dimensions, corner, sweep.temperature, chosen, run.sweep_answers(sweep))
        assert again == sweep
    assert len(list(csv.DictReader((folder / "out" / "points.csv").read_text("utf-8").splitlines()))) == 6
    installed = (folder / "adapter" / "evaluation.json").read_bytes()
    assert installed == (folder / "out" / "evaluation.json").read_bytes()
    assert "mine" in (folder / "out" / "report.html").read_text("utf-8")


def test_notes_name_no_folders_and_no_arguments(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server publishes them."""
    command = f"command:{sys.executable} -c 'import sys; [print(len(line)) for line in sys.stdin]' --key=secret"
    specs = rewards(f"python:{folder}/rules.py:letters", command)
    chosen = [*GOLDEN, *specs, "--limit", 2, "--system", "Be brief.", "--temperature", 0, "--seed", 7]
    assert panacea_eval(*chosen, "--out", "out", monkeypatch=monkeypatch) == 0
    evaluation = read_run(folder / "out").evaluation
    assert evaluation.notes == {
        "prompts": "2 of 3, evenly, in prompts.jsonl, behind a system prompt",
        "preferences": "the 3 whose weights are multiples of 1/1",
        "rewards": f"helpful: rules.py:letters; harmless: a command, {Path(sys.executable).name}; "
        "concise: minus rule:words",
        "answers": "at most 8 tokens, seed 7",
    }
    assert evaluation.model == "adapter"
    assert evaluation.prompts == 2


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("--python:/home/me/rules.py:f", "rules.py:f"),
        ("---command:/home/me/judge --token abc", "minus a command, judge"),
        ("command:'/secret folder/judge.py' --token abc", "a command, judge.py"),
        ("-model:/home/me/judge", "minus the reward model judge"),
        ("classifier:me/formality#formal", "the text classifier formality#formal"),
        ("rule:concise:40", "rule:concise:40"),
    ],
)
def test_no_notation_of_a_reward_gets_a_folder_into_the_notes(spec: str, said: str) -> None:
    assert evaluation_exam.described(spec) == said


def test_points_and_the_reference_can_be_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "points.json").write_text('[[1, 1, 0], {"concise": 2}]', "utf-8")
    arguments = [*GOLDEN[:-2], *rewards(), "--preferences", "points.json", "--temperature", 0, "--out", "out"]
    arguments += ["--reference", "concise=-100,helpful=-1,harmless=-2"]
    assert panacea_eval(*arguments, monkeypatch=monkeypatch) == 0
    evaluation = read_run(folder / "out").evaluation
    assert [point.preference for point in evaluation.sweeps[0].points] == [(0.5, 0.5, 0.0), (0.0, 0.0, 1.0)]
    assert evaluation.reference_point == (-1, -2, -100)


@pytest.mark.slow
def test_runs_beside_each_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("first", 1), ("second", 2)):
        arguments = [*GOLDEN, *rewards(), "--temperature", 1.1, "--seed", seed, "--out", name]
        assert panacea_eval(*arguments, monkeypatch=monkeypatch) == 0
    capsys.readouterr()
    assert panacea_eval("compare", "a=first", "b=second", "--out", "both", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr()
    assert "temperature 1.1: hypervolume of a minus b: " in said.out
    assert "not paired" not in said.out
    content = json.loads((folder / "both" / "comparison.json").read_text("utf-8"))
    corners = [read_run(folder / name).evaluation.reference_point for name in ("first", "second")]
    assert content["reference_point"] == [min(column) for column in zip(*corners, strict=True)]
    assert {path.name for path in (folder / "both").iterdir()} == {"comparison.json", "comparison.csv", "report.html"}
    assert panacea_eval("compare", "a=first", "b=second", "--out", "both", monkeypatch=monkeypatch) == 2
    assert "both exists already; --overwrite replaces it" in capsys.readouterr().err
    again = ["compare", "a=first", "b=second", "--out", "both", "--overwrite", "--reference", "0,0,-50"]
    assert panacea_eval(*again, monkeypatch=monkeypatch) == 0
    assert json.loads((folder / "both" / "comparison.json").read_text("utf-8"))["reference_point"] == [0, 0, -50]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", BASE], "--adapter is missing: a base model alone has no preferences"),
        (["--adapter", "adapter", "--model", BASE], "--prompts is missing"),
        (
            ["--prompts", "prompts.jsonl"],
            "--reward is missing for helpful, harmless, concise: give one for each dimension",
        ),
        ([*GOLDEN, *rewards()[:4]], "--reward is missing for concise"),
        (
            [*GOLDEN, *rewards(), "--reward", "tone=rule:words"],
            "the adapter has no dimension tone (dimensions: helpful,",
        ),
        ([*GOLDEN, *rewards(), "--reward", "helpful=rule:words"], "the dimension helpful has a reward already"),
        ([*GOLDEN, "--reward", "helpful"], "--reward helpful: write NAME=REWARD"),
        ([*GOLDEN, *rewards("magic:x")], "magic:x is not a reward function"),
        ([*GOLDEN, *rewards("python:rules.py:nothing")], "rules.py has no function nothing"),
        ([*GOLDEN, *rewards("python:rules.py:broken")], "rules.py:broken gave nan, which is not a finite number"),
        ([*GOLDEN, *rewards(), "--prompts", "nowhere.jsonl"], "nowhere.jsonl cannot be read: no such file"),
        ([*GOLDEN, *rewards(), "--prompts", "rules.py"], "rules.py, line 2: is not valid JSON"),
        ([*GOLDEN, *rewards(), "--preferences", "prompts.jsonl"], "--grid and --preferences both choose"),
        ([*GOLDEN[:-1], 10**9, *rewards()], "points in 3 dimensions, but at most 1,000 are evaluated"),
        ([*GOLDEN[:-1], 0, *rewards()], "--grid"),
        ([*GOLDEN, *rewards(), "--max-tokens", 600], "the prompt on line 1 has"),
        ([*GOLDEN, *rewards(), "--temperature", 3], "--temperature"),
        ([*GOLDEN, *rewards(), "--temperature", 1, "--temperature", 1], "--temperature 1 is there twice"),
        ([*GOLDEN, *rewards(), "--reference", "1,2"], "--reference 1,2: 2 numbers for 3 dimensions"),
        ([*GOLDEN, *rewards(), "--reference", "helpful=1"], "--reference helpful=1: harmless is missing"),
        ([*GOLDEN, *rewards(), "--reference", "kind=1"], "--reference kind=1: there is no dimension kind"),
        ([*GOLDEN, *rewards(), "--reference", "1,2,nan"], "--reference 1,2,nan: the numbers must be finite"),
        ([*GOLDEN, *rewards(), "--reference", "x"], "--reference x"),
        (["--install"], "--install copies into the adapter's folder"),
        ([*GOLDEN, *rewards(), "--out", "adapter"], "adapter exists already; --overwrite replaces it"),
        (
            [*GOLDEN, *rewards(), "--out", "adapter", "--overwrite"],
            "adapter is not an evaluation, so it is not replaced",
        ),
        ([*GOLDEN, *rewards(), "--out", "rules.py"], "rules.py exists already"),
        (["--adapter", "nowhere"], "nowhere is neither a folder nor a hub id"),
        (["--device", "cuda", "--max-batch", 0], "--max-batch"),
        (["compare", "first"], "first: write NAME=DIR"),
        (["compare", "a=adapter", "b=adapter"], "adapter is not an evaluation: evaluation.json is missing"),
    ],
)
def test_what_is_wrong_ends_with_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[object],
    message: str,
) -> None:
    out = [] if "--out" in arguments else ["--out", "out"]
    assert panacea_eval(*arguments, *out, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("panacea: error: ")
    assert message in said.splitlines()[-1]
    assert "Traceback" not in said
    left = {path.name for path in folder.iterdir()} - {"__pycache__"}
    kept = {"out-unfinished.jsonl"} if "out-unfinished.jsonl keeps" in said else set[str]()
    assert left == {"adapter", "prompts.jsonl", "rules.py"} | kept, "nothing half done is left"
    assert not (folder / "adapter" / "evaluation.json").exists()


def test_a_judge_that_fails_loses_no_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*GOLDEN, "--temperature", 1.2, *rewards()]
    assert panacea_eval(*arguments, "--out", "whole", monkeypatch=monkeypatch) == 0
    broken = [*GOLDEN, "--temperature", 1.2, *rewards(concise="python:rules.py:broken")]
    assert panacea_eval(*broken, "--out", "out", monkeypatch=monkeypatch) == 2
    kept = folder / "out-unfinished.jsonl"
    assert f"{kept} keeps 9 answers: the same command generates only the others" in capsys.readouterr().err
    assert not (folder / "out").exists()

    monkeypatch.setattr(Engine, "step", _never)
    assert panacea_eval(*arguments, "--out", "out", monkeypatch=monkeypatch) == 0
    assert f"{kept} has 9 answers of an interrupted run" in capsys.readouterr().err
    assert not kept.exists()
    for name in ("answers.jsonl", "evaluation.json", "points.csv"):
        assert (folder / "out" / name).read_bytes() == (folder / "whole" / name).read_bytes()


def _never(_engine: Engine) -> list[TokenOutput]:
    raise AssertionError("everything was answered already")


def test_help_is_in_panels() -> None:
    text = help_of("eval")
    for words in (
        "Prompts and rewards",
        "Preferences",
        "Machine",
        "python:FILE.py:function",
        "compare",
    ):
        assert words in text
    assert "eval" in help_of()
    assert "NAME=DIR" in help_of("eval", "compare")


@pytest.mark.slow
def test_nothing_at_all_evaluates_the_embedded_demo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_exam, "DEMO_LIMIT", 2)
    assert panacea_eval("--grid", 1, monkeypatch=monkeypatch) == 0
    evaluation = read_run(folder / "runs" / "eval").evaluation
    assert evaluation.model == "Panacea demo"
    assert evaluation.prompts == 2
    assert [sweep.temperature for sweep in evaluation.sweeps] == [0.7, 0.0]
    assert all(point.faithful is not None for sweep in evaluation.sweeps for point in sweep.points)
