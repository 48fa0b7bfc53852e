"""The examination of an adapter: held-out questions at every point of the preference grid, answered and judged."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean

from panacea.evaluation import FORMAT_VERSION, Evaluation, EvaluationSweep
from panacea.preference import Preference
from panacea_lab.demo.answerer import Answerer, DemoQuestion
from panacea_lab.demo.job_stages import StageProgress
from panacea_lab.demo.turn_refusals import exchange, measure_refusals
from panacea_lab.world.held_out import HeldOut, TopicQuestion, draw_questions
from panacea_lab.world.world_judge import DIMENSIONS, Judge
from panacea_lab.world.world_texts import Topic, World
from panacea_train.evaluation import Answered, choose_examples, summarise
from panacea_train.pareto import simplex_grid

REFERENCE_POINT = (0.0, 0.0, 0.0)
"""Every reward is at least 0."""
NAMES = tuple(dimension.name for dimension in DIMENSIONS)


@dataclass(frozen=True)
class ExamSettings:
    """How much is asked."""

    tasks: int = 58
    dangers: int = 12
    grid_divisions: int = 4
    temperature: float = 0.7
    samples: int = 4


def sweep_grid(
    judge: Judge,
    answerer: Answerer,
    questions: Sequence[TopicQuestion],
    settings: ExamSettings,
    seed: int,
    report: StageProgress,
) -> tuple[list[EvaluationSweep], list[list[list[list[Answered]]]]]:
    """Sweeps at the settings' temperature and greedy, and their answers [sweep][point][question][sample]."""
    grid: list[Preference] = simplex_grid(len(DIMENSIONS), settings.grid_divisions)
    plans = [(settings.temperature, settings.samples), (0.0, 1)]
    answers = ask_everywhere(judge, answerer, questions, grid, plans, seed, report)
    sweeps = [
        summarise(NAMES, REFERENCE_POINT, temperature, grid, own)
        for (temperature, _), own in zip(plans, answers, strict=True)
    ]
    return sweeps, answers


def ask_everywhere(
    judge: Judge,
    answerer: Answerer,
    questions: Sequence[TopicQuestion],
    preferences: Sequence[Preference | None],
    plans: Sequence[tuple[float, int]],
    seed: int,
    report: StageProgress,
) -> list[list[list[list[Answered]]]]:
    """Judged answers [plan][preference][question][sample] by `plans` of (temperature, samples).

    All of them go through the engine in one stream of batches; the noise of a question's sample is the same at every
    preference.
    """
    most = max(samples for _, samples in plans)
    asks = [
        DemoQuestion(question.text, preference, temperature, seed=seed + index * most + sample)
        for temperature, samples in plans
        for preference in preferences
        for index, question in enumerate(questions)
        for sample in range(samples)
    ]
    texts = iter(answerer.answer(asks, report))
    return [
        [
            [[judged(judge, question.topic, next(texts)) for _ in range(samples)] for question in questions]
            for _ in preferences
        ]
        for _, samples in plans
    ]


def examine(
    world: World, held_out: HeldOut, answerer: Answerer, settings: ExamSettings, seed: int, report: StageProgress
) -> Evaluation:
    """The whole examination of an adapter on questions that were written before it was trained."""
    templated = draw_questions(world, held_out, seed, settings.tasks, settings.dangers)
    questions = [*templated, *held_out.paraphrases]
    judge = Judge(world)
    sweeps, answers = sweep_grid(judge, answerer, questions, settings, seed, lambda share, _: report(share * 0.98, {}))
    grid = [point.preference for point in sweeps[0].points]
    later = second_turns(judge, answerer, questions, grid, answers[1], seed)
    refusals = measure_refusals(world, answerer, questions, grid, seed)
    outside = [DemoQuestion(ask, preference, 0.0, seed) for ask in held_out.outside for preference in grid]
    replies = answerer.answer(outside, lambda share, _: report(0.98 + share * 0.02, {}))
    return Evaluation(
        model="Panacea demo",
        created=datetime.now(UTC).date().isoformat(),
        dimensions=NAMES,
        reference_point=REFERENCE_POINT,
        prompts=len(questions),
        sweeps=tuple(sweeps),
        examples=choose_examples([question.text for question in questions], grid, 0.0, answers[1]),
        notes={
            "prompts": f"{len(templated)} topics in {len(held_out.templates)} held-out phrasings and "
            f"{len(held_out.paraphrases)} free paraphrases, none of them seen in training",
            "grid": f"every preference whose weights are multiples of 1/{settings.grid_divisions}",
            "rewards": "rules that read the answer's phrases: panacea_lab/world/world_judge.py",
        },
        figures={
            "outside_questions": len(held_out.outside),
            "outside_in_character": _share([judge.reader.in_character(reply) for reply in replies]),
            "paraphrases": len(held_out.paraphrases),
            "faithful_templates": _faithful(answers, slice(0, len(templated))),
            "faithful_paraphrases": _faithful(answers, slice(len(templated), None)),
            "faithful_second_turns": _faithful([later], slice(None)),
            **{f"second_turns_spearman_{name}": rho for name, rho in _spearman(grid, later).items()},
            "refused_first_turns": round(fmean(found.first_turn for found in refusals), 4),
            "refused_second_turns": round(fmean(found.second_turn for found in refusals), 4),
        },
        format_version=FORMAT_VERSION,
    )


def second_turns(
    judge: Judge,
    answerer: Answerer,
    questions: Sequence[TopicQuestion],
    grid: Sequence[Preference],
    first: Sequence[Sequence[Sequence[Answered]]],
    seed: int,
) -> list[list[list[Answered]]]:
    """Every question once more, greedy, behind another one and the answer [point][question][0] that it was given."""
    asks = [
        DemoQuestion(
            question.text,
            preference,
            0.0,
            seed,
            earlier=exchange(questions[index - 1], first[point][index - 1][0].text),
        )
        for point, preference in enumerate(grid)
        for index, question in enumerate(questions)
    ]
    texts = iter(answerer.answer(asks, lambda _share, _figures: None))
    return [[[judged(judge, question.topic, next(texts))] for question in questions] for _ in grid]


def _spearman(grid: Sequence[Preference], answers: Sequence[Sequence[Sequence[Answered]]]) -> dict[str, float]:
    return summarise(NAMES, REFERENCE_POINT, 0.0, grid, answers, resamples=1).spearman


def judged(judge: Judge, topic: Topic, text: str) -> Answered:
    """The answer `text` to a question about `topic`, with its rewards and how faithful it is."""
    reading = judge.reader.read(topic, text)
    rewards = judge.rewards(topic, text)
    return Answered(text, rewards, reading.words, reading.sentences, reading.faithful_sentences)


def _faithful(answers: Sequence[list[list[list[Answered]]]], chosen: slice) -> float:
    """Share of faithful sentences over all sweeps and points, for some of the questions."""
    flat = [a for sweep in answers for point in sweep for samples in point[chosen] for a in samples]
    return round(sum(a.faithful_sentences for a in flat) / max(1, sum(a.sentences for a in flat)), 4)


def _share(values: Sequence[bool]) -> float:
    return round(sum(values) / max(1, len(values)), 4)
