"""The whole comparison with a few steps: every stage runs, nothing is done twice, and the page says what was done."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import panacea
from panacea.errors import ConfigError
from panacea_lab.demo.examination import NAMES, REFERENCE_POINT
from panacea_lab.reproduce import ReproduceSettings, reproduce
from panacea_lab.reproduce.comparison_page import write_report
from panacea_lab.reproduce.comparison_results import ComparisonResults
from panacea_train.evaluation import summarise

BASE = Path(panacea.__file__).parent / "demo" / "base"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reproduce") / "work"


@pytest.fixture(scope="module")
def results(out: Path) -> ComparisonResults:
    return reproduce(BASE, out, ReproduceSettings.tiny(), processes=2, show_progress=False)


@pytest.mark.slow
def test_every_method_was_trained_and_asked(results: ComparisonResults) -> None:
    assert [method.name for method in results.methods] == ["panacea", "soup", "discrete"]
    assert results.temperatures == [0.0, 0.7]
    for method in results.methods:
        (trained,) = method.trained
        assert [len(answers) for answers in trained.answers] == [6, 6]
        assert all(len(asked) == results.questions == 4 for answers in trained.answers for asked in answers)
        assert all(answer.text for answers in trained.answers for point in answers for q in point for answer in q)


@pytest.mark.slow
def test_nothing_is_done_twice(results: ComparisonResults, out: Path) -> None:
    stages = out / "stages.json"
    before = stages.read_text("utf-8")
    again = reproduce(BASE, out, ReproduceSettings.tiny(), processes=1, show_progress=False)
    assert again == results
    assert stages.read_text("utf-8") == before
    assert len(json.loads(before)["seconds"]) == 1 + 3 + 1 + 3
    with pytest.raises(ConfigError, match="other settings"):
        reproduce(BASE, out, replace(ReproduceSettings.tiny(), steps=12), show_progress=False)


@pytest.mark.slow
def test_the_page_says_what_came_out(results: ComparisonResults, tmp_path: Path) -> None:
    page = write_report(results, tmp_path).read_text("utf-8")
    assert (tmp_path / "images/reproduction.png").read_bytes().startswith(b"\x89PNG")
    assert "6 for one adapter (Panacea)," in page
    assert "2 for each of 3 adapters (Rewarded soups)," in page
    assert "1 for each of 6 adapters (Discrete policies)." in page
    for method in results.methods:
        for plan, temperature in enumerate(results.temperatures):
            preferences = [tuple(preference) for preference in method.preferences]
            sweep = summarise(NAMES, REFERENCE_POINT, temperature, preferences, method.trained[0].answers[plan], 1)
            section = page.partition(f"### {'Greedy' if temperature == 0 else 'Temperature 0.7'}")[2].partition("###")[
                0
            ]
            assert re.search(rf"\| {method.title} \| \*\*{sweep.hypervolume:.3f}\*\* \[", section)
