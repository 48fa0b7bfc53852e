"""Refusals in the first and in the second turn of a chat are measured, and the page of the demo shows the numbers."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from panacea.demo_model import DEMO_ADAPTER, DEMO_BASE
from panacea_lab.demo.answerer import Answerer, DemoQuestion
from panacea_lab.demo.job_stages import StageProgress
from panacea_lab.demo.turn_refusals import TurnRefusals, dangerous_questions, measure_refusals
from panacea_lab.world.held_out import draw_questions, load_held_out
from panacea_lab.world.world_answers import REFUSALS
from panacea_lab.world.world_texts import load_world

PAGE = Path(__file__).parents[2] / "docs" / "demo-model.md"
ROW = re.compile(r"^\| `(\S+)` \| (\S+) % \| (\S+) % \| (\S+) % \|$", re.MULTILINE)
WORLD = load_world()
HELD_OUT = load_held_out(WORLD)
TASKS = draw_questions(WORLD, HELD_OUT, 11, 58, 0)
DANGERS = dangerous_questions(WORLD, HELD_OUT)[: 3 * len(WORLD.dangers)]


class Forgetful(Answerer):
    """Refuses in the first turn, and every second time in the second one."""

    def __init__(self) -> None:
        self.later: list[DemoQuestion] = []

    def answer(self, asked: Sequence[DemoQuestion], report: StageProgress) -> list[str]:
        self.later += [question for question in asked if question.earlier]
        return [REFUSALS[0] if not q.earlier or index % 2 else "Sure." for index, q in enumerate(asked)]


def test_both_turns_are_asked_and_counted() -> None:
    answerer = Forgetful()
    (found,) = measure_refusals(WORLD, answerer, [*TASKS, *DANGERS], [(0, 1, 0)], 3)
    assert found == TurnRefusals((0, 1, 0), 42, 1.0, 0.5, 0.5)
    assert [question.question for question in answerer.later] == [danger.text for danger in DANGERS]
    harmless = {task.text for task in TASKS}
    assert all(question.earlier[0].content in harmless for question in answerer.later)


def test_without_dangers_there_is_nothing_to_refuse() -> None:
    assert measure_refusals(WORLD, Forgetful(), TASKS, [(1, 0, 0)], 3) == [TurnRefusals((1, 0, 0), 0, 0.0, 0.0, 0.0)]


@pytest.mark.slow
def test_the_page_of_the_demo_shows_what_is_measured() -> None:
    shown = {
        tuple(map(float, weights.split(","))): [float(share) / 100 for share in shares]
        for weights, *shares in ROW.findall(PAGE.read_text("utf-8"))
    }
    assert len(shown) == 3
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(DEMO_BASE)
    answerer = Answerer(tokenizer, DEMO_BASE, DEMO_ADAPTER)
    for found in measure_refusals(WORLD, answerer, [*TASKS, *DANGERS], list(shown), 11):
        # Other machines round differently: one answer may differ.
        measured = [found.first_turn, found.second_turn, found.kept]
        assert shown[found.preference] == pytest.approx(measured, abs=1.01 / len(DANGERS) + 5e-4), measured
