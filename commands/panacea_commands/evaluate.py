"""`panacea eval`: its options, and what it prints."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from panacea.bounds import Bounded, Bounds, Count
from panacea.config import ComputeOptions, EngineConfig
from panacea.errors import ConfigError
from panacea.preference import PreferenceSpace
from panacea_commands.evaluation_exam import (
    JudgedOptions,
    PointOptions,
    choose_points,
    make_demo_exam,
    make_exam,
    read_reference,
)
from panacea_commands.option_sources import FIELDS, new_app, panel

if TYPE_CHECKING:
    from panacea_train.evaluation import EvaluationRun
    from panacea_train.evaluation.comparison import Difference

DEMO_TEMPERATURES = (0.7, 0.0)
DEMO_MAX_TOKENS = 200
UNFINISHED = "-unfinished.jsonl"
"""Added to the name of --out: the file that keeps the answers of an evaluation until it is complete."""

eval_app = new_app(
    "eval",
    help_epilogue="docs/evaluation.md has the formulas. `panacea eval compare` compares several evaluations.",
)


@dataclass(frozen=True)
class EvaluatedOptions:
    """What is evaluated."""

    adapter: str | None = None
    """Panacea adapter: a folder or a hub id."""
    model: str | None = None
    """Base model: a folder or a hub id. Default: the adapter's own base."""
    name: str | None = None
    """Name in the files. Default: the name of the adapter's folder."""


@dataclass(frozen=True)
class AnswerOptions(Bounded):
    """How each prompt is answered."""

    temperature: tuple[float, ...] = ()
    """Sampling temperature, from 0 (greedy) to 2. May be repeated. Default: 0.7."""
    samples: Annotated[int, Bounds(least=1, most=10_000)] = 1
    """Answers to each prompt at each preference. A greedy answer is sampled once."""
    max_tokens: Count | None = None
    """Longest answer. Default: 256."""
    seed: Annotated[int, Bounds(least=0, most=2**62)] = 0
    """The same seed gives the same answers. All preferences share its noise."""


@dataclass(frozen=True)
class ReferenceOptions:
    """Where hypervolumes begin."""

    reference: Annotated[str | None, Parameter(metavar="NAME=x,NAME=x", allow_leading_hyphen=True)] = None
    """Reference point of the hypervolumes: a reward for each dimension, or x,x in their order. Default: the worst
    reward that any single answer had."""


@dataclass(frozen=True)
class EvaluationOutputOptions:
    """Where the evaluation is written."""

    out: Annotated[Path, Parameter(metavar="DIR")] = Path("runs/eval")
    """The new folder. It appears only when it is complete."""
    overwrite: bool = False
    """Replace --out, if that is an evaluation, once the new one is complete."""
    install: bool = False
    """Also copy evaluation.json into the adapter's folder. GET /v1/evaluation serves it, and the page draws it."""


_JUDGED, _POINTS, _ANSWERS = panel("Prompts and rewards"), panel("Preferences"), panel("Answers")
_OUTPUT, _MACHINE = panel("Output"), panel("Machine")


@eval_app.default
def evaluate(
    *,
    evaluated: Annotated[EvaluatedOptions, FIELDS] = EvaluatedOptions(),
    judged: Annotated[JudgedOptions, _JUDGED] = JudgedOptions(),
    points: Annotated[PointOptions, _POINTS] = PointOptions(),
    answers: Annotated[AnswerOptions, _ANSWERS] = AnswerOptions(),
    output: Annotated[EvaluationOutputOptions, _OUTPUT] = EvaluationOutputOptions(),
    corner: Annotated[ReferenceOptions, _OUTPUT] = ReferenceOptions(),
    compute: Annotated[ComputeOptions, _MACHINE] = ComputeOptions(),
) -> None:
    """Measure how well an adapter steers: the same prompts at each preference, each answer judged on each dimension.

    It needs an adapter, prompts, and a reward for each dimension:

        panacea eval --adapter ./mine --prompts prompts.jsonl
          --reward helpful=model:./judge --reward concise=rule:concise:40

    Without an adapter it evaluates the embedded demo model, with the demo's own questions and judge:

        panacea eval

    --out gets the front and its measures (evaluation.json, points.csv), all answers, and a report in HTML.
    """
    from panacea_train.evaluation.evaluation_run import EVALUATION, REPORT_FILE, install_run, write_run
    from panacea_train.evaluation.kept_replies import kept_replies
    from panacea_train.evaluation.model_evaluation import evaluate as run_evaluation
    from panacea_train.evaluation.sweep import SweepSettings
    from panacea_train.output_folder import new_folder
    from panacea_train.report import write_report

    adapter, out = evaluated.adapter, output.out
    is_demo = adapter is None and evaluated.model is None and judged.prompts is None and not judged.reward
    base, adapter_folder, space = _checkpoint(evaluated)
    if output.install and (adapter is None or not Path(adapter).expanduser().is_dir()):
        raise ConfigError("--install copies into the adapter's folder: give --adapter with a folder of your own")
    settings = SweepSettings(
        temperatures=answers.temperature or (DEMO_TEMPERATURES if is_demo else SweepSettings.temperatures),
        samples=answers.samples,
        max_tokens=answers.max_tokens or (DEMO_MAX_TOKENS if is_demo else SweepSettings.max_tokens),
        seed=answers.seed,
    )
    config = EngineConfig(
        base,
        adapter_folder,
        max_step_tokens=max(compute.max_batch, EngineConfig.max_step_tokens),
        **vars(compute),
    )
    chosen = choose_points(points, space)
    reference = None if corner.reference is None else read_reference(corner.reference, space.names)
    exam = make_demo_exam(judged, answers.seed) if is_demo else make_exam(judged, space, compute.device)
    notes = {
        "prompts": exam.prompts_in_words,
        "preferences": chosen.in_words,
        "rewards": exam.rewards_in_words,
        "answers": f"at most {settings.max_tokens} tokens, seed {settings.seed}",
    }
    with (
        kept_replies(Path(f"{out.absolute()}{UNFINISHED}"), _say) as kept,
        new_folder(out, overwrite=output.overwrite, replaces=EVALUATION) as folder,
    ):
        per_prompt = sum(settings.samples_at(each) for each in settings.temperatures)
        counts = len(chosen.preferences), len(exam.prompts), per_prompt
        said = [
            f"{n:,} {word}{'s' * (n != 1)}" for n, word in zip(counts, ("preference", "prompt", "answer"), strict=True)
        ]
        _say(f"{' x '.join(said)} = {math.prod(counts):,} answers")
        run = run_evaluation(
            evaluated.name or ("Panacea demo" if adapter is None else Path(adapter).resolve().name),
            config,
            space.names,
            chosen.preferences,
            exam.prompts,
            exam.scorer,
            settings,
            reference_point=reference or exam.reference_point,
            notes=notes,
            kept=kept,
        )
        write_run(run, folder)
        write_report([run], folder / REPORT_FILE)
    _print([run])
    _say(f"Report: {out / REPORT_FILE}. evaluation.json, points.csv and answers.jsonl are in the same folder.")
    if output.install:
        install_run(run, adapter_folder)
        _say(f"Installed in the adapter. Now: panacea serve --adapter {adapter}")


@dataclass(frozen=True)
class ComparisonOptions:
    """Where the comparison is written."""

    out: Annotated[Path, Parameter(metavar="DIR")] = Path("runs/comparison")
    """The new folder. It appears only when it is complete."""
    overwrite: bool = False
    """Replace --out, if that is a comparison, once the new one is complete."""


@eval_app.command
def compare(
    *evaluation: Annotated[
        str, Parameter(name="NAME=DIR", required=True, help="A name, and a folder that panacea eval --out has written.")
    ],
    options: Annotated[ComparisonOptions, FIELDS] = ComparisonOptions(),
    corner: Annotated[ReferenceOptions, FIELDS] = ReferenceOptions(),
) -> None:
    """Compare evaluations, with one reference point for all and intervals of their differences.

    Name each evaluation:

        panacea eval compare soup=runs/soup panacea=runs/panacea --out runs/comparison

    Their dimensions must be the same. If their prompts are the same too, differences are paired: both evaluations are
    resampled with the same prompts.
    """
    from panacea_train.evaluation.comparison import (
        COMPARISON,
        compare_runs,
        with_common_reference,
        write_comparison,
    )
    from panacea_train.evaluation.evaluation_run import REPORT_FILE, read_run
    from panacea_train.output_folder import new_folder
    from panacea_train.report import write_report

    runs: list[EvaluationRun] = []
    for text in evaluation:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise ConfigError(f"{text}: write NAME=DIR, a name and the folder of an evaluation")
        runs.append(read_run(Path(folder).expanduser(), name))
    dimensions = runs[0].evaluation.dimensions
    reference = None if corner.reference is None else read_reference(corner.reference, dimensions)
    with new_folder(options.out, overwrite=options.overwrite, replaces=COMPARISON) as new:
        runs = with_common_reference(runs, reference)
        comparison = compare_runs(runs)
        write_comparison(comparison, new)
        write_report(runs, new / REPORT_FILE, comparison.differences)
    _print(runs)
    for difference in comparison.differences:
        print(_in_words(difference))
    _say(f"Report: {options.out / REPORT_FILE}. comparison.json and comparison.csv are in the same folder.")


def _checkpoint(options: EvaluatedOptions) -> tuple[Path, Path, PreferenceSpace]:
    """Local folders of base and adapter, and the adapter's preference space."""
    from panacea.model.checkpoint import Checkpoint

    if options.adapter is None and options.model is not None:
        raise ConfigError("--adapter is missing: a base model alone has no preferences")
    found = Checkpoint.find(options.model, options.adapter)
    assert found.adapter is not None
    assert found.space is not None
    if not found.space.dimensions:
        raise ConfigError(f"{found.adapter} has no dimensions, so it cannot be evaluated at preferences")
    return found.base, found.adapter, found.space


def _print(runs: "Sequence[EvaluationRun]") -> None:
    from rich.console import Console

    from panacea_train.report.terminal import tables

    for table in tables(runs):
        Console().print(table, "")


def _in_words(difference: "Difference") -> str:
    from panacea_train.report.terminal import temperature_in_words

    low, high = difference.interval
    where, measure = temperature_in_words(difference.temperature), difference.measure.replace("_", " ")
    what = f"{where}: {measure} of {difference.of} minus {difference.minus}"
    alone = "" if difference.paired else " (not paired)"
    return f"{what}: {difference.difference:+.4f}, {low:+.4f} to {high:+.4f}{alone}"


def _say(text: str) -> None:
    print(text, file=sys.stderr)
