"""docs/evaluation.md says what is there, and its examples are read."""

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from panacea.preference import Dimension, PreferenceSpace
from panacea_train.evaluation import AnswerRecord
from panacea_train.evaluation.preference_lists import grid_of, read_preferences
from panacea_train.prompts import read_prompts
from tests.command import help_of

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text("utf-8")
PROMPTS, POINTS, ANSWER = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)


def test_its_options_exist() -> None:
    shown = help_of("eval") + help_of("eval", "compare")
    options = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    assert len(options) > 10
    assert options <= set(re.findall(r"--[a-z-]+", shown))


def test_its_prompts_are_read(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text(PROMPTS, "utf-8")
    prompts = read_prompts(tmp_path / "prompts.jsonl")
    assert [len(prompt.messages) for prompt in prompts] == [1, 2, 1]
    assert prompts[2].fields == {"reference": "42"}


def test_its_preferences_are_read_and_grids_have_its_sizes(tmp_path: Path) -> None:
    (tmp_path / "points.json").write_text(POINTS, "utf-8")
    dimensions = tuple(Dimension(name) for name in ("helpful", "harmless", "concise", "kind"))
    space = PreferenceSpace(dimensions[:3], (1, 1, 1), {"balanced": (0.4, 0.3, 0.3)})
    assert read_preferences(tmp_path / "points.json", space) == [(0.75, 0, 0.25), (0.5, 0.25, 0.25), (0.4, 0.3, 0.3)]
    names = "abcde"
    spaces = [PreferenceSpace(tuple(Dimension(n) for n in names[:m]), (1,) * m) for m in (2, 3, 4, 5)]
    assert [len(grid_of(each, 4)) for each in spaces] == [5, 15, 35, 70]


def test_its_answer_is_one() -> None:
    record = msgspec.json.decode(ANSWER, type=AnswerRecord)
    assert json.loads(msgspec.json.encode(record)) == json.loads(ANSWER)


@pytest.mark.slow
def test_evaluating_needs_no_packages_of_training() -> None:
    """Whoever has installed the server alone can evaluate."""
    names = ("peft", "accelerate", "scipy", "trl", "matplotlib", "tensorboard")
    modules = (
        "panacea_lab.demo.judging",
        "panacea_train.evaluation.model_evaluation",
        "panacea_train.evaluation.comparison",
        "panacea_train.report.terminal",
        "panacea_train.rewards",
        "panacea_train.output_folder",
    )
    code = f"import sys; sys.modules.update(dict.fromkeys({names!r})); import {', '.join(modules)}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
