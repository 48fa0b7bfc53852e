"""One model's evaluation as a folder: the measures, a row for each point, and every answer."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from panacea.errors import ConfigError, first_line
from panacea.evaluation import Evaluation, EvaluationSweep
from panacea_train.evaluation.evaluation_file import EVALUATION_FILE, load_evaluation, save_evaluation
from panacea_train.evaluation.sweep_summary import Answered
from panacea_train.output_folder import Contents

ANSWERS_FILE = "answers.jsonl"
POINTS_FILE = "points.csv"
REPORT_FILE = "report.html"
EVALUATION = Contents("an evaluation", (ANSWERS_FILE,), (EVALUATION_FILE, POINTS_FILE, ANSWERS_FILE, REPORT_FILE))


class AnswerRecord(Answered, frozen=True, kw_only=True, omit_defaults=True):
    """One answer, as a line of answers.jsonl. Its rewards are not rounded."""

    temperature: float
    preference: tuple[float, ...]
    """A point of the temperature's sweep."""
    prompt_index: int
    """From 0, in the order of the prompts."""
    prompt: str
    """The user's last message."""
    sample: int
    """From 0."""
    cut_off: bool = False
    """It reached the token limit before it ended."""


class EvaluationRun(msgspec.Struct, frozen=True):
    """An evaluation with its name in a comparison."""

    name: str
    evaluation: Evaluation
    answers: tuple[AnswerRecord, ...] | None = None
    """None: they were not kept."""

    def sweep_answers(self, sweep: EvaluationSweep) -> list[list[list[AnswerRecord]]]:
        """The answers of one of the evaluation's sweeps: [point][prompt][sample], points in the sweep's order.

        Raises `ConfigError` unless there is exactly one answer for each of them.
        """
        found = {
            (record.preference, record.prompt_index, record.sample): record
            for record in self.answers or ()
            if record.temperature == sweep.temperature
        }
        count = sum(record.temperature == sweep.temperature for record in self.answers or ())
        expected = len(sweep.points) * self.evaluation.prompts * sweep.samples_per_prompt
        try:
            grouped = [
                [
                    [found[point.preference, prompt, sample] for sample in range(sweep.samples_per_prompt)]
                    for prompt in range(self.evaluation.prompts)
                ]
                for point in sweep.points
            ]
        except KeyError:
            grouped = []
        if not grouped or count != expected:
            raise ConfigError(
                f"{self.name}: {ANSWERS_FILE} and {EVALUATION_FILE} do not belong together: at temperature "
                f"{sweep.temperature:g} there must be one answer for each of {expected} points, prompts and samples"
            )
        return grouped

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts in order; empty if the answers were not kept."""
        asked = {record.prompt_index: record.prompt for record in self.answers or ()}
        return tuple(asked[index] for index in sorted(asked))


def write_run(run: EvaluationRun, folder: Path) -> None:
    """Writes evaluation.json, points.csv and, if there are answers, answers.jsonl into the existing `folder`."""
    save_evaluation(run.evaluation, folder / EVALUATION_FILE)
    with (folder / POINTS_FILE).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(_rows(run.evaluation))
    if run.answers is not None:
        (folder / ANSWERS_FILE).write_bytes(msgspec.json.Encoder().encode_lines(run.answers))


def install_run(run: EvaluationRun, adapter: Path) -> None:
    """Writes evaluation.json beside the adapter in this folder and replaces an existing one.

    Raises `ConfigError` where it cannot be written.
    """
    new = adapter / f".{EVALUATION_FILE}-new"
    try:
        save_evaluation(run.evaluation, new)
        new.replace(adapter / EVALUATION_FILE)
    except OSError as error:
        raise ConfigError(f"{adapter / EVALUATION_FILE} cannot be written: {error.strerror}") from None


def read_run(folder: Path, name: str | None = None) -> EvaluationRun:
    """The run that `write_run` wrote. Its default name is the folder's. Its answers are None if their file is missing.

    Raises `ConfigError` that names a missing or damaged file.
    """
    if not (folder / EVALUATION_FILE).is_file():
        raise ConfigError(f"{folder} is not an evaluation: {EVALUATION_FILE} is missing; panacea eval --out writes one")
    file = folder / EVALUATION_FILE
    try:
        evaluation = load_evaluation(file)
        answers = None
        if (folder / ANSWERS_FILE).is_file():
            file = folder / ANSWERS_FILE
            answers = tuple(_records(file, evaluation))
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{file} cannot be read: {first_line(error)}") from None
    return EvaluationRun(name or folder.resolve().name, evaluation, answers)


def _records(file: Path, evaluation: Evaluation) -> Iterator[AnswerRecord]:
    decoder = msgspec.json.Decoder(AnswerRecord)
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = decoder.decode(line)
            except (ValueError, msgspec.MsgspecError) as error:
                raise ValueError(f"line {number}: {first_line(error)}") from None
            if len(record.rewards) != len(evaluation.dimensions):
                raise ValueError(
                    f"line {number}: it needs {len(evaluation.dimensions)} rewards, one for each dimension"
                )
            yield record


def _rows(evaluation: Evaluation) -> Iterator[Iterable[object]]:
    names = evaluation.dimensions
    yield (
        "temperature",
        *(f"weight_{name}" for name in names),
        *(f"reward_{name}" for name in names),
        *(f"standard_error_{name}" for name in names),
        "mean_words",
        "non_dominated",
    )
    for sweep in evaluation.sweeps:
        for point in sweep.points:
            yield (
                sweep.temperature,
                *point.preference,
                *point.rewards,
                *point.standard_errors,
                point.mean_words,
                str(point.non_dominated).lower(),
            )
