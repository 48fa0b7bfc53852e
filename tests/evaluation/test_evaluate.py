"""An evaluation from beginning to end: what is written agrees with what was said, and with what servers read."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import TypeAdapter

from panacea.config import EngineConfig
from panacea.evaluation import Evaluation
from panacea.preference import Preference
from panacea.text.chat_template import ChatMessage
from panacea_train.evaluation import EvaluationRun, read_run, summarise, write_run
from panacea_train.evaluation.answer_rewards import RewardScorer
from panacea_train.evaluation.evaluation_run import install_run
from panacea_train.evaluation.model_evaluation import evaluate
from panacea_train.evaluation.sweep import SweepSettings
from panacea_train.prompts import Prompt
from panacea_train.rewards import RewardError
from panacea_train.rewards.reward import ScoreProgress
from tests.api.fake_engine import FakeEngine
from tests.api.serving import serving
from tests.golden_files import ADAPTER, BASE

NAMES = ("helpful", "harmless", "concise")
GRID: list[Preference] = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.25, 0.25)]
PROMPTS = [
    Prompt((ChatMessage("user", text),), {"wanted": letter}, line)
    for line, (text, letter) in enumerate(
        [("Plant the bulbs", "a"), ("Why?", "e"), ("How do I sharpen a knife?", "s")], 1
    )
]
SETTINGS = SweepSettings((0.8, 0.0), samples=2, max_tokens=10, seed=3)


async def make_engine() -> FakeEngine:
    return FakeEngine()


class Counting:
    """How often an answer has the letter that its prompt wants; notes what it was asked."""

    def __init__(self, sign: float = 1.0) -> None:
        self.calls: list[tuple[list[Prompt], list[str]]] = []
        self._sign = sign

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str], report: ScoreProgress) -> list[float]:
        self.calls.append((list(prompts), list(answers)))
        report(len(answers))
        return [self._sign * answer.count(p.fields["wanted"]) for p, answer in zip(prompts, answers, strict=True)]


def golden_run(**changes: Any) -> EvaluationRun:
    reward, length = Counting(), Counting(-1.0)
    arguments: dict[str, Any] = {
        "name": "golden",
        "config": EngineConfig(model=BASE, adapter=ADAPTER, dtype="float32"),
        "dimensions": NAMES,
        "preferences": GRID,
        "prompts": PROMPTS,
        "scorer": RewardScorer({"helpful": reward, "harmless": reward, "concise": length}),
        "settings": SETTINGS,
        "notes": {"rewards": "letters"},
    }
    return evaluate(**(arguments | changes))


@pytest.fixture(scope="module")
def run() -> EvaluationRun:
    return golden_run()


def test_every_answer_is_there_with_its_rewards(run: EvaluationRun) -> None:
    assert run.answers is not None
    assert len(run.answers) == 4 * 3 * (2 + 1)
    for record in run.answers:
        letter = PROMPTS[record.prompt_index].fields["wanted"]
        count = float(record.text.count(letter))
        assert record.rewards == (count, count, -count)
        assert record.words == len(record.text.split())
        assert record.prompt == PROMPTS[record.prompt_index].text
    assert len({(r.temperature, r.preference, r.prompt_index, r.sample) for r in run.answers}) == len(run.answers)


def test_a_reward_that_judges_two_dimensions_scores_once() -> None:
    reward, other = Counting(), Counting()
    scorer = RewardScorer({"helpful": reward, "harmless": other, "concise": reward})
    scored = scorer.score(PROMPTS, ["banana", "tree", "success"])
    assert [answered.rewards for answered in scored] == [(3.0, 3.0, 3.0), (2.0, 2.0, 2.0), (3.0, 3.0, 3.0)]
    assert len(reward.calls) == len(other.calls) == 1
    assert reward.calls[0] == (PROMPTS, ["banana", "tree", "success"])


@pytest.mark.parametrize("scores", [[1.0, float("nan"), 1.0], [1.0, float("inf"), 1.0]])
def test_a_score_that_is_no_finite_number_is_refused_by_dimension_and_prompt(scores: list[float]) -> None:
    class Broken:
        def score(self, prompts: Sequence[Prompt], answers: Sequence[str], report: ScoreProgress) -> list[float]:
            return scores

    scorer = RewardScorer({"helpful": Counting(), "concise": Broken()})
    with pytest.raises(RewardError, match=r'the reward of concise gave (nan|inf), .* for the answer "tree" to "Why\?"'):
        scorer.score(PROMPTS, ["banana", "tree", "success"])


def test_a_score_that_is_missing_is_noticed() -> None:
    class Short:
        def score(self, prompts: Sequence[Prompt], answers: Sequence[str], report: ScoreProgress) -> list[float]:
            return [1.0]

    with pytest.raises(RewardError, match="the reward of helpful gave 1 scores for 3 answers"):
        RewardScorer({"helpful": Short()}).score(PROMPTS, ["banana", "tree", "success"])


def test_the_reference_point_is_the_worst_single_answer_unless_it_is_given(run: EvaluationRun) -> None:
    assert run.answers is not None
    worst = tuple(min(record.rewards[i] for record in run.answers) for i in range(3))
    assert run.evaluation.reference_point == worst
    given = golden_run(reference_point=(-9.0, -9.0, -9.0))
    assert given.evaluation.reference_point == (-9.0, -9.0, -9.0)
    assert given.answers == run.answers
    for lower, own in zip(given.evaluation.sweeps, run.evaluation.sweeps, strict=True):
        assert lower.hypervolume > own.hypervolume


def test_the_answers_sum_up_to_the_evaluation(run: EvaluationRun, tmp_path: Path) -> None:
    write_run(run, tmp_path)
    again = read_run(tmp_path, "golden")
    assert again == run
    assert [(sweep.temperature, sweep.samples_per_prompt) for sweep in again.evaluation.sweeps] == [(0.8, 2), (0.0, 1)]
    for sweep in again.evaluation.sweeps:
        answers = again.sweep_answers(sweep)
        assert summarise(NAMES, again.evaluation.reference_point, sweep.temperature, GRID, answers) == sweep
        assert all(point.faithful is None for point in sweep.points)


def test_figures_say_how_many_answers_were_cut_off(run: EvaluationRun) -> None:
    assert run.answers is not None
    assert run.evaluation.figures["answers"] == 36
    assert run.evaluation.figures["cut_off"] == round(sum(r.cut_off for r in run.answers) / 36, 4) > 0
    assert 0 < run.evaluation.figures["tokens_per_answer"] <= 10
    assert golden_run(settings=SweepSettings((0.0,), max_tokens=300)).evaluation.figures["cut_off"] < 1


def test_examples_are_of_the_lowest_temperature(run: EvaluationRun) -> None:
    assert run.answers is not None
    greedy = {(r.prompt, r.preference): r for r in run.answers if r.temperature == 0}
    assert [example.prompt for example in run.evaluation.examples] == [prompt.text for prompt in PROMPTS]
    for example in run.evaluation.examples:
        assert example.temperature == 0
        for answer in example.answers:
            assert answer.text == greedy[example.prompt, answer.preference].text


def test_a_server_serves_the_installed_file(run: EvaluationRun, tmp_path: Path) -> None:
    write_run(run, tmp_path)
    written = (tmp_path / "evaluation.json").read_bytes()
    TypeAdapter(Evaluation).validate_json(written, strict=True)
    adapter = shutil.copytree(ADAPTER, tmp_path / "adapter")
    install_run(run, adapter)
    assert sorted(path.name for path in adapter.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "evaluation.json",
    ]
    with serving(make_engine, evaluation=(adapter / "evaluation.json").read_bytes()) as served:
        response = httpx2.get(f"{served.url}/v1/evaluation")
    assert response.status_code == 200
    assert response.content == written
