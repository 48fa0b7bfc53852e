"""A whole evaluation: generating the answers, scoring them, and computing the measures."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby

from tqdm import tqdm

from panacea.config import EngineConfig
from panacea.evaluation import FORMAT_VERSION, Evaluation
from panacea.preference import Preference
from panacea_train.evaluation.answer_rewards import Scorer
from panacea_train.evaluation.evaluation_run import AnswerRecord, EvaluationRun
from panacea_train.evaluation.example_answers import choose_examples
from panacea_train.evaluation.kept_replies import KeptReplies
from panacea_train.evaluation.sweep import SweepSettings, sweep
from panacea_train.evaluation.sweep_summary import SweepAnswers, summarise
from panacea_train.prompts import Prompt


def evaluate(
    name: str,
    config: EngineConfig,
    dimensions: Sequence[str],
    preferences: Sequence[Preference],
    prompts: Sequence[Prompt],
    scorer: Scorer,
    settings: SweepSettings,
    *,
    reference_point: Sequence[float] | None = None,
    notes: Mapping[str, str] | None = None,
    kept: KeptReplies | None = None,
) -> EvaluationRun:
    """Generates answers to all prompts at all preferences, scores them, and computes the measures.

    `reference_point`: where hypervolumes begin, a reward for each dimension. None is the worst reward of any single
    answer. `notes` say in words how it was measured. Replies in `kept` are not generated again.
    Raises what `sweep` and `scorer` raise.
    """
    said = sweep(config, prompts, preferences, settings, kept)
    scored = scorer.score([prompts[answer.prompt] for answer in said], [answer.text for answer in said])
    records = tuple(
        AnswerRecord(
            text=answered.text,
            rewards=answered.rewards,
            words=answered.words,
            sentences=answered.sentences,
            faithful_sentences=answered.faithful_sentences,
            temperature=answer.temperature,
            preference=preferences[answer.point],
            prompt_index=answer.prompt,
            prompt=prompts[answer.prompt].text,
            sample=answer.sample,
            cut_off=answer.cut_off,
        )
        for answer, answered in zip(said, scored, strict=True)
    )
    corner = worst_rewards(records) if reference_point is None else tuple(reference_point)
    by_temperature = {temperature: list(own) for temperature, own in groupby(records, lambda r: r.temperature)}
    grouped = {
        temperature: _grouped(own, len(prompts), settings.samples_at(temperature))
        for temperature, own in by_temperature.items()
    }
    sweeps = tuple(
        summarise(dimensions, corner, temperature, preferences, answers)
        for temperature, answers in tqdm(grouped.items(), desc="Intervals", unit="temperature", leave=False)
    )
    shown = min(settings.temperatures)
    tokens = sum(answer.tokens for answer in said)
    evaluation = Evaluation(
        model=name,
        created=datetime.now(UTC).date().isoformat(),
        dimensions=tuple(dimensions),
        reference_point=corner,
        prompts=len(prompts),
        sweeps=sweeps,
        examples=choose_examples([prompt.text for prompt in prompts], preferences, shown, grouped[shown]),
        notes=dict(notes or {}),
        figures={
            "answers": len(said),
            "tokens_per_answer": round(tokens / len(said), 2),
            "cut_off": round(sum(answer.cut_off for answer in said) / len(said), 4),
        },
        format_version=FORMAT_VERSION,
    )
    return EvaluationRun(name, evaluation, records)


def worst_rewards(records: Sequence[AnswerRecord]) -> tuple[float, ...]:
    """The lowest reward of any single answer on each dimension."""
    return tuple(min(column) for column in zip(*(record.rewards for record in records), strict=True))


def _grouped(records: Sequence[AnswerRecord], prompts: int, samples: int) -> SweepAnswers:
    """[point][prompt][sample], from answers in this order."""
    rest = iter(records)

    def point() -> Iterator[list[AnswerRecord]]:
        for _ in range(prompts):
            yield [next(rest) for _ in range(samples)]

    return [list(point()) for _ in range(len(records) // (prompts * samples))]
