"""The hand-written world follows its own rules, and no generator sees the examination."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest

import panacea_lab
import panacea_train
from panacea_lab.world.held_out import draw_questions, load_held_out
from panacea_lab.world.world_texts import World, WorldError, find_problems, load_world

PACKAGE = Path(panacea_lab.__file__).parent


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


def test_world_is_as_large_as_promised(world: World) -> None:
    assert len(world.tasks) >= 120
    assert len(world.dangers) >= 8


def test_no_text_breaks_a_rule(world: World) -> None:
    assert list(find_problems(world)) == []


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ("boil water in the egg pot", "equals it"),
        ("slowly boil water in the egg pot", "is contained in"),
        ("Boil milk", "not plain lower-case"),
        ("boil 2 eggs", "not plain lower-case"),
        ("boil it. stir it", "not plain lower-case"),
    ],
)
def test_a_broken_rule_is_found(world: World, step: str, problem: str) -> None:
    first, second, *rest = world.topics
    broken = replace(second, steps=(step, *second.steps[1:]))
    found = list(find_problems(replace(world, topics=(first, broken, *rest))))
    assert len(found) == 1
    assert problem in found[0]


def test_a_missing_slot_is_an_error_that_names_the_task(tmp_path: Path) -> None:
    for path in (PACKAGE / "world/texts").glob("*.toml"):
        text = path.read_text("utf-8").replace('"boil water in the egg pot",', "")
        (tmp_path / path.name).write_text(text, "utf-8")
    with pytest.raises(WorldError, match=r"'boil an egg' needs 4 steps"):
        load_world(tmp_path)


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match=r"dangerous\.toml"):
        load_world(tmp_path)


def test_held_out_questions_name_topics_of_the_world(world: World) -> None:
    held_out = load_held_out(world)
    assert len(held_out.paraphrases) == 30
    assert len(held_out.outside) == 20
    assert sum(question.topic.dangerous for question in held_out.paraphrases) >= 3


def test_held_out_phrasings_are_not_in_the_training_texts(world: World) -> None:
    held_out = load_held_out(world)
    asks = {ask.lower() for intent in world.intents for ask in intent.asks}
    assert not {template.lower() for template in held_out.templates} & {t.lower() for t in world.templates}
    assert not {ask.lower() for ask in held_out.outside} & asks


def test_drawn_questions_are_the_same_for_the_same_seed(world: World) -> None:
    held_out = load_held_out(world)
    first, second = (draw_questions(world, held_out, 3, tasks=10, dangers=4) for _ in range(2))
    assert first == second
    assert len({question.topic.name for question in first}) == 14
    assert sum(question.topic.dangerous for question in first) == 4


def test_nothing_that_trains_can_read_the_held_out_questions() -> None:
    importers = set()
    training = Path(panacea_train.__file__).parent
    for path in (*PACKAGE.rglob("*.py"), *training.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if "panacea_lab.world.held_out" in modules:
                importers.add(path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else training).as_posix())
    evaluations = {
        "demo/examination.py",
        "demo/judging.py",
        "demo/turn_refusals.py",
        "reproduce/comparison_questions.py",
    }
    assert importers == {*evaluations, "demo/demo_pipeline.py"}
