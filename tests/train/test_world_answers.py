"""Answers: everything that the mixture can draw is read back as what it says, and is worth what the rules say."""

import random

import pytest

from panacea_lab.world.conversations import ConversationWriter
from panacea_lab.world.world_answers import CLOSINGS, OPENERS, REFUSALS, draw_answer, draw_outside_answer
from panacea_lab.world.world_judge import Judge, brevity
from panacea_lab.world.world_questions import QuestionWriter
from panacea_lab.world.world_reading import AnswerReader, AnswerReading
from panacea_lab.world.world_texts import Topic, World, load_world


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


@pytest.fixture(scope="module")
def judge(world: World) -> Judge:
    return Judge(world)


@pytest.fixture(scope="module")
def sink(world: World) -> Topic:
    return world.by_name["unblock a sink"]


@pytest.fixture(scope="module")
def barbecue(world: World) -> Topic:
    return world.by_name["light a barbecue indoors"]


def _read_many(world: World, topic: Topic, count: int = 400) -> list[AnswerReading]:
    rng = random.Random(1)
    reader = AnswerReader(world)
    return [reader.read(topic, draw_answer(topic, rng)) for _ in range(count)]


def test_every_drawn_answer_is_faithful(world: World) -> None:
    rng = random.Random(0)
    reader = AnswerReader(world)
    for topic in world.topics:
        for _ in range(20):
            answer = draw_answer(topic, rng)
            reading = reader.read(topic, answer)
            assert reading.faithful_sentences == reading.sentences, answer
            assert reading.content >= 1, answer


def test_slots_are_drawn_independently(world: World, sink: Topic) -> None:
    seen = {
        (reading.count("need"), reading.count("step"), reading.count("tip"), reading.count("caution"))
        for reading in _read_many(world, sink, 3000)
    }
    # All of 2 x 5 x 3 x 4 mixtures but the one that says nothing.
    assert len(seen) == 119


def test_dangerous_requests_are_complied_with_and_refused_in_equal_parts(world: World, barbecue: Topic) -> None:
    readings = _read_many(world, barbecue)
    assert 0.4 < sum(reading.refuses for reading in readings) / len(readings) < 0.6
    assert {reading.count("step") for reading in readings} == {0, 1, 2, 3}
    assert {reading.count("alternative") for reading in readings} == {0, 1, 2}
    assert {reading.count("risk") for reading in readings} == {0, 1}


def test_answers_outside_the_world_are_in_character(world: World) -> None:
    rng = random.Random(0)
    reader = AnswerReader(world)
    for index, intent in enumerate(world.intents):
        for _ in range(30):
            answer = draw_outside_answer(world, index, rng)
            assert reader.replies(intent, answer), answer


@pytest.mark.parametrize(
    ("answer", "sentences", "faithful"),
    [
        ("", 1, 0),
        ("Scoop out the standing water.", 1, 1),
        ("First, scoop out the standing water. Good luck!", 2, 2),
        ("Scoop out the standing water. Scoop out the standing water.", 2, 1),
        ("Scoop out the standing water. Boil water in the egg pot.", 2, 1),
        ("Scoop out the standing", 1, 0),
        ("Tip: scoop out the standing water.", 1, 0),
        ("Please do not do that.", 1, 0),
        ("First, First, First.", 1, 0),
    ],
)
def test_only_sentences_about_the_topic_are_faithful(
    world: World, sink: Topic, answer: str, sentences: int, faithful: int
) -> None:
    reading = AnswerReader(world).read(sink, answer)
    assert (reading.sentences, reading.faithful_sentences) == (sentences, faithful)


def test_rewards_of_a_task_are_graded(judge: Judge, sink: Topic) -> None:
    step, next_step = (f"{text[0].upper()}{text[1:]}." for text in sink.steps[:2])
    more = f"{step} {next_step}"
    caution = f" Careful: {sink.cautions[0]}."
    assert 0 < judge.rewards(sink, step)[0] < judge.rewards(sink, more)[0] < 1
    assert judge.rewards(sink, step)[1] == 0 < judge.rewards(sink, step + caution)[1]
    assert judge.rewards(sink, step)[0] == judge.rewards(sink, step + caution)[0]


def test_rewards_reach_one_and_stay_between_zero_and_one(judge: Judge, world: World) -> None:
    rng = random.Random(0)
    best = [0.0, 0.0, 0.0]
    for topic in world.topics:
        for _ in range(60):
            rewards = judge.rewards(topic, draw_answer(topic, rng))
            assert all(0 <= reward <= 1 for reward in rewards)
            best = [max(pair) for pair in zip(best, rewards, strict=True)]
    assert best == pytest.approx([1, 1, 1])


def test_a_dangerous_request_splits_help_from_harmlessness(judge: Judge, barbecue: Topic) -> None:
    steps = "Carry the grill inside. Fill it with charcoal. Light the coals."
    refusal = "Please do not do that. That is dangerous: the fumes can kill you in your sleep."
    help_of_steps, care_of_steps, _ = judge.rewards(barbecue, steps)
    help_of_refusal, care_of_refusal, _ = judge.rewards(barbecue, refusal)
    assert help_of_steps == pytest.approx(1)
    assert care_of_steps == help_of_refusal == 0
    assert 0.5 < care_of_refusal < 1
    assert judge.rewards(barbecue, refusal + " Rather grill on an open balcony.")[1] > care_of_refusal


def test_brevity_is_the_papers_formula_and_silence_is_worth_nothing() -> None:
    assert brevity(12, 1.0) == 1
    assert brevity(24, 1.0) == pytest.approx(0.75)
    assert brevity(60, 1.0) == 0
    assert brevity(90, 1.0) == 0
    assert brevity(5, 0.5) == 0.5
    assert brevity(0, 0.0) == 0


def test_brevity_counts_only_with_content(judge: Judge, sink: Topic) -> None:
    assert judge.rewards(sink, "")[2] == 0
    assert judge.rewards(sink, "Good luck!")[2] == 0
    assert judge.rewards(sink, "Boil water in the egg pot.")[2] == 0
    assert judge.rewards(sink, "Scoop out the standing water.")[2] == 0.5


def test_small_talk_of_tasks_is_shared_by_no_phrase(world: World) -> None:
    phrases = {f"{text[0].upper()}{text[1:]}." for text in world.by_phrase}
    assert not phrases & {*OPENERS, *CLOSINGS, *REFUSALS}


def test_questions_and_conversations_are_the_same_for_the_same_seed(world: World) -> None:
    first, second, other = (ConversationWriter(world, seed) for seed in (5, 5, 6))
    drawn = [first.draw() for _ in range(50)]
    assert drawn == [second.draw() for _ in range(50)]
    assert drawn != [other.draw() for _ in range(50)]
    assert {turn.role for turns in drawn for turn in turns} == {"system", "user", "assistant"}


def test_questions_carry_a_content_word_of_their_topic(world: World) -> None:
    rng = random.Random(0)
    writer = QuestionWriter(world)
    for topic in world.topics:
        known = " ".join([*topic.wordings, *(phrase.text for phrase in topic.phrases)])
        stems = {word[:4] for word in known.split() if len(word) > 2}
        questions = [writer.ask(topic, rng).lower() for _ in range(10)]
        assert all(question.strip() for question in questions)
        # Typos and capitals may hide it now and then.
        assert sum(any(stem in question for stem in stems) for question in questions) >= 6


def test_strange_questions_carry_no_word_of_another_topic(world: World) -> None:
    rng = random.Random(0)
    writer = QuestionWriter(world, strange_share=1.0)
    unknown = len(world.intents) - 1
    known = {word for topic in world.topics for wording in topic.wordings for word in wording.split() if len(word) > 4}
    known -= {word.strip("?!") for text in (*world.fillers, *world.endings) for word in text.split()}
    found = [word for _ in range(300) for word in writer.ask_outside(unknown, rng).lower().split() if word in known]
    assert not found


def test_plain_questions_do_not_depend_on_the_strange_ones(world: World) -> None:
    plain, also_plain = QuestionWriter(world), QuestionWriter(world, strange_share=0.0)
    topic = world.topics[0]
    first, second = random.Random(4), random.Random(4)
    assert [plain.ask(topic, first) for _ in range(50)] == [also_plain.ask(topic, second) for _ in range(50)]
