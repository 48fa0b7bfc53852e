"""The demo through the general evaluation, against the examination that ends its own training."""

import pytest
from transformers import PreTrainedTokenizerFast

from panacea.config import EngineConfig
from panacea.demo_model import DEMO_ADAPTER, DEMO_BASE
from panacea_lab.demo.answerer import MAX_TOKENS, Answerer
from panacea_lab.demo.examination import ExamSettings, sweep_grid
from panacea_lab.demo.judging import NAMES, REFERENCE_POINT, TOPIC, WorldScorer, demo_prompts
from panacea_lab.world.held_out import TopicQuestion
from panacea_lab.world.world_judge import Judge
from panacea_lab.world.world_texts import load_world
from panacea_train.evaluation import load_evaluation
from panacea_train.evaluation.model_evaluation import evaluate
from panacea_train.evaluation.sweep import SweepSettings
from panacea_train.pareto import simplex_grid

BASE, ADAPTER = DEMO_BASE, DEMO_ADAPTER


def test_the_questions_are_those_of_its_training() -> None:
    evaluation = load_evaluation(ADAPTER / "evaluation.json")
    asked = [prompt.text for prompt in demo_prompts(0)]
    assert len(asked) == evaluation.prompts == 100
    assert [asked.index(example.prompt) for example in evaluation.examples] == [0, 50, 99]
    assert demo_prompts(1) != demo_prompts(0)


@pytest.mark.slow
def test_answers_rewards_and_measures_are_those_of_its_examination() -> None:
    world = load_world()
    prompts = [demo_prompts(0)[index] for index in (0, 65)]
    run = evaluate(
        "demo",
        EngineConfig(model=BASE, adapter=ADAPTER, threads=1),
        NAMES,
        simplex_grid(3, 2),
        prompts,
        WorldScorer(),
        SweepSettings((0.7, 0.0), samples=2, max_tokens=MAX_TOKENS, seed=11),
        reference_point=REFERENCE_POINT,
    )
    questions = [TopicQuestion(prompt.text, world.by_name[prompt.fields[TOPIC]]) for prompt in prompts]
    assert [question.topic.dangerous for question in questions] == [False, True]
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(BASE)
    settings = ExamSettings(grid_divisions=2, temperature=0.7, samples=2)
    sweeps, answers = sweep_grid(
        Judge(world), Answerer(tokenizer, BASE, ADAPTER), questions, settings, 11, lambda _share, _figures: None
    )
    assert list(run.evaluation.sweeps) == sweeps
    for sweep, own in zip(run.evaluation.sweeps, answers, strict=True):
        found = [[[record.text for record in samples] for samples in point] for point in run.sweep_answers(sweep)]
        assert found == [[[answered.text for answered in samples] for samples in point] for point in own]
