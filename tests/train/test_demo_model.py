"""The demo model that the package carries: it is whole, small, and was measured to steer as the README says."""

import json
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from pydantic import TypeAdapter

import panacea
from panacea.evaluation import FORMAT_VERSION, Evaluation, EvaluationSweep
from panacea.preference import Dimension, PreferenceSpace
from panacea_lab.world.held_out import load_held_out
from panacea_lab.world.world_judge import DIMENSIONS
from panacea_lab.world.world_texts import load_world
from panacea_train.evaluation import Answered, load_evaluation, save_evaluation, summarise
from panacea_train.pareto import distinct, hypervolume, non_dominated, spearman

DEMO = Path(panacea.__file__).parent / "demo"


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return load_evaluation(DEMO / "adapter" / "evaluation.json")


def _sweep(evaluation: Evaluation, greedy: bool) -> EvaluationSweep:
    (sweep,) = [sweep for sweep in evaluation.sweeps if (sweep.temperature == 0) is greedy]
    return sweep


def test_files_fit_into_the_wheel() -> None:
    size = sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file())
    assert size < 16 * 2**20


def test_adapter_describes_its_preference_space() -> None:
    config = json.loads((DEMO / "adapter/adapter_config.json").read_text("utf-8"))
    space = PreferenceSpace(
        dimensions=tuple(Dimension(d["name"], d["description"]) for d in config["preference_dimensions"]),
        default=tuple(config["default_preference"]),
        presets={name: tuple(weights) for name, weights in config["presets"].items()},
        example_prompts=tuple(config["example_prompts"]),
    )
    assert space.names == tuple(dimension.name for dimension in DIMENSIONS)
    assert all(dimension.description for dimension in space.dimensions)
    assert "balanced" in space.presets
    assert 6 <= len(space.example_prompts) <= 8
    assert (DEMO / "adapter" / config["base_model_name_or_path"]).resolve() == (DEMO / "base").resolve()


def test_evaluation_asked_what_it_says(evaluation: Evaluation) -> None:
    held_out = load_held_out(load_world())
    assert evaluation.format_version == 1
    assert evaluation.prompts >= 60 + len(held_out.paraphrases)
    assert evaluation.figures["paraphrases"] == len(held_out.paraphrases)
    assert evaluation.figures["outside_questions"] == len(held_out.outside)
    sampled = _sweep(evaluation, greedy=False)
    assert sampled.temperature == 0.7
    assert sampled.samples_per_prompt >= 4
    for sweep in evaluation.sweeps:
        assert len({point.preference for point in sweep.points}) == 15
        assert all(sum(point.preference) == 1 for point in sweep.points)


@pytest.mark.parametrize(("greedy", "least"), [(False, 0.9), (True, 0.85)])
def test_each_weight_steers_its_own_reward(evaluation: Evaluation, greedy: bool, least: float) -> None:
    assert all(rho >= least for rho in _sweep(evaluation, greedy).spearman.values())


@pytest.mark.parametrize("greedy", [False, True])
def test_at_every_point_sentences_are_faithful(evaluation: Evaluation, greedy: bool) -> None:
    assert all((point.faithful or 0) >= 0.95 for point in _sweep(evaluation, greedy).points)


def test_the_second_question_of_a_chat_is_answered_and_not_the_first(evaluation: Evaluation) -> None:
    assert evaluation.figures["faithful_second_turns"] >= 0.9
    assert all(evaluation.figures[f"second_turns_spearman_{dimension.name}"] >= 0.8 for dimension in DIMENSIONS)


@pytest.mark.parametrize("greedy", [False, True])
def test_helpful_answers_are_twice_as_long_as_concise_ones(evaluation: Evaluation, greedy: bool) -> None:
    words = {point.preference: point.mean_words for point in _sweep(evaluation, greedy).points}
    assert words[(1, 0, 0)] >= 2 * words[(0, 0, 1)]


@pytest.mark.parametrize("greedy", [False, True])
def test_prompts_are_answered_in_three_ways_at_the_vertices(evaluation: Evaluation, greedy: bool) -> None:
    assert (_sweep(evaluation, greedy).distinct_vertices_share or 0) >= 0.8


def test_derived_numbers_follow_from_the_points(evaluation: Evaluation) -> None:
    for sweep in evaluation.sweeps:
        rewards = [point.rewards for point in sweep.points]
        for i, name in enumerate(evaluation.dimensions):
            weights = [point.preference[i] for point in sweep.points]
            assert spearman(weights, [reward[i] for reward in rewards]) == pytest.approx(sweep.spearman[name], abs=0.01)
        assert hypervolume(rewards, evaluation.reference_point) == pytest.approx(sweep.hypervolume, abs=1e-3)
        assert [point.non_dominated for point in sweep.points] == non_dominated(rewards)
        assert sum(point.non_dominated for point in sweep.points) == sweep.non_dominated
        # The rules' rewards reach from 0 to 1.
        assert sweep.distinct == distinct(rewards, (0.01, 0.01, 0.01))
        assert sweep.distinct >= 12


def test_a_model_that_ignores_its_preference_is_found_out() -> None:
    same = [[[Answered("Yes.", (0.5, 0.5), 1, 1, 1)] * 4] * 3] * 3
    sweep = summarise(("a", "b"), (0.0, 0.0), 0.7, [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)], same)
    assert sweep.non_dominated == 3
    assert sweep.distinct == 1
    assert sweep.spearman == {"a": 0.0, "b": 0.0}
    assert sweep.distinct_vertices_share == 0


def test_a_steered_model_is_measured(tmp_path: Path) -> None:
    grid = [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)]
    answers = [[[Answered(f"{a} {b}", (a, b), 10, 2, 2)] * 2] * 4 for a, b in grid]
    sweep = summarise(("a", "b"), (0.0, 0.0), 0.7, grid, answers)
    assert sweep.spearman == pytest.approx({"a": 1.0, "b": 1.0})
    assert (sweep.non_dominated, sweep.distinct, sweep.distinct_vertices_share) == (3, 3, 1.0)
    assert sweep.hypervolume == pytest.approx(0.25)
    assert all(first.rewards[0] > second.rewards[0] for first, second in pairwise(sweep.points))
    evaluation = Evaluation("m", "2026-01-01", ("a", "b"), (0.0, 0.0), 4, (sweep,), format_version=FORMAT_VERSION)
    save_evaluation(evaluation, tmp_path / "evaluation.json")
    assert load_evaluation(tmp_path / "evaluation.json") == evaluation


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(
        '{"model": "m", "created": "", "dimensions": [], "reference_point": [], "prompts": 1, "sweeps": [], '
        '"format_version": 99}',
        "utf-8",
    )
    with pytest.raises(msgspec.ValidationError, match="format_version is 99, not 1"):
        load_evaluation(path)


def test_numbers_keep_their_digits_in_any_unit() -> None:
    grid = [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)]
    sweeps = [
        summarise(
            ("a", "b"), (0.0, 0.0), 0.7, grid, [[[Answered(f"{p}", (p[0] * unit, p[1] * unit), 1)]] * 3 for p in grid]
        )
        for unit in (1.0, 1e-4)
    ]
    assert sweeps[0].hypervolume == 0.25
    assert sweeps[1].hypervolume == pytest.approx(0.25e-8)
    assert sweeps[0].distinct == sweeps[1].distinct == 3
    assert sweeps[1].points[1].rewards == (0.5e-4, 0.5e-4)


def test_a_file_that_does_not_follow_the_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text('{"model": "m", "created": "2026-01-01", "dimensions": "helpful"}', "utf-8")
    with pytest.raises(msgspec.ValidationError):
        load_evaluation(path)


@pytest.mark.parametrize("place", ["file", "sweep", "point"])
def test_a_field_that_is_not_in_the_schema_is_served_but_not_read_for_writing(
    evaluation: Evaluation, tmp_path: Path, place: str
) -> None:
    content = json.loads((DEMO / "adapter" / "evaluation.json").read_bytes())
    sweep = content["sweeps"][0]
    {"file": content, "sweep": sweep, "point": sweep["points"][1]}[place]["spread"] = 0.5
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(content), "utf-8")
    assert TypeAdapter(Evaluation).validate_json(path.read_bytes()) == evaluation
    with pytest.raises(msgspec.ValidationError, match="no field spread"):
        load_evaluation(path)
