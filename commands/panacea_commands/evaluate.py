"""`panacea eval`: its options, and what it prints."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from panacea.config import Device, DType, EngineConfig
from panacea.demo_model import DEMO_ADAPTER
from panacea.errors import ConfigError
from panacea.preference import Preference, PreferenceSpace
from panacea_commands.option_values import read_weights

if TYPE_CHECKING:
    from panacea_train.evaluation import Run
    from panacea_train.evaluation.answer_rewards import Scorer
    from panacea_train.evaluation.comparison import Difference
    from panacea_train.prompts import Prompt

DEMO_LIMIT = 40
"""Of the demo's 100 questions, so that its evaluation takes seconds. With all of them and --samples 4 it is the
one that comes with the demo."""
DEMO_TEMPERATURES = (0.7, 0.0)
DEMO_MAX_TOKENS = 200
DEFAULT_GRID = 4
REPORT_FILE = "report.html"
UNFINISHED = "-unfinished.jsonl"
"""Behind the name of --out: where the answers are kept of an evaluation that has not come to its end."""

eval_app = typer.Typer(invoke_without_command=True)

_JUDGED = "What is asked, and how it is judged"
_POINTS = "Preferences"
_SAMPLING = "Answers"
_OUTPUT = "Output"
_MACHINE = "Machine"

_Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        rich_help_panel=_OUTPUT,
        help="Replace --out, if that is an evaluation, once the new is complete.",
    ),
]
_Reference = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_OUTPUT,
        metavar="NAME=x,NAME=x",
        help="Where hypervolumes begin, a reward for each dimension; or x,x in their order. Default: the worst reward "
        "that any single answer had.",
    ),
]


@eval_app.callback(
    epilog="docs/evaluation.md has the formulas. `panacea eval compare` sets several evaluations beside each other."
)
def evaluate(
    context: typer.Context,
    adapter: Annotated[str | None, typer.Option(help="Panacea adapter: a folder or a hub id.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Base model: a folder or a hub id. Default: the adapter's own base.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the files call it. Default: the name of the adapter's folder.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=_JUDGED,
            help="JSON Lines with prompt or messages, or a .txt with a prompt on each line.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=_JUDGED, help="Ask so many of the prompts, evenly over the file."),
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", rich_help_panel=_JUDGED, help="A system prompt before each prompt.")
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=REWARD",
            rich_help_panel=_JUDGED,
            help="A dimension and what judges it, for each dimension: python:FILE.py:function, model:DIR, "
            "classifier:DIR#LABEL, command:PROGRAM or rule:concise:40; with - in front less is better. See "
            "docs/rewards.md.",
        ),
    ] = None,
    grid: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", rich_help_panel=_POINTS, help="All preferences of multiples of 1/N. Default: 4."
        ),
    ] = None,
    preferences: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=_POINTS,
            help="Instead: a JSON list, or lines, of weights by name, lists of weights, or presets' names.",
        ),
    ] = None,
    temperature: Annotated[
        list[float] | None,
        typer.Option(min=0, max=2, rich_help_panel=_SAMPLING, help="0 is greedy. May be repeated. Default: 0.7."),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            min=1, rich_help_panel=_SAMPLING, help="Answers to each prompt at each preference; greedy ones are one."
        ),
    ] = 1,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=_SAMPLING, help="Longest answer. Default: 256.")
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=2**62,
            rich_help_panel=_SAMPLING,
            help="Same seed, same answers; all preferences share its noise.",
        ),
    ] = 0,
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", rich_help_panel=_OUTPUT, help="The new folder. It appears as a whole or not at all."
        ),
    ] = Path("runs/eval"),
    overwrite: _Overwrite = False,
    install: Annotated[
        bool,
        typer.Option(
            "--install",
            rich_help_panel=_OUTPUT,
            help="Copy evaluation.json into the adapter's folder too: GET /v1/evaluation serves it, the page draws it.",
        ),
    ] = False,
    reference: _Reference = None,
    max_batch: Annotated[
        int, typer.Option(min=1, rich_help_panel=_MACHINE, help="Most answers in one step.")
    ] = EngineConfig.max_batch,
    dtype: Annotated[
        DType, typer.Option(rich_help_panel=_MACHINE, help="auto: 16 bits on CUDA, float32 on a CPU.")
    ] = "auto",
    device: Annotated[Device, typer.Option(rich_help_panel=_MACHINE)] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, rich_help_panel=_MACHINE, help="CPU threads. Default: one for tiny models, else all cores."
        ),
    ] = None,
) -> None:
    """Measure how well an adapter steers: the same prompts at every preference, each answer judged on each dimension.

        panacea eval --adapter ./mine --prompts prompts.jsonl
          --reward helpful=model:./judge --reward concise=rule:concise:40

    Without an adapter it evaluates the embedded demo model, with the demo's own questions and judge:

        panacea eval

    --out gets the front and its measures (evaluation.json, points.csv), every answer, and a report to look at.
    """
    if context.invoked_subcommand is not None:
        return
    from panacea_train.convert.output_folder import Contents, new_folder
    from panacea_train.evaluation.evaluate import evaluate as run_evaluation
    from panacea_train.evaluation.evaluation_run import ANSWERS_FILE, install_run, write_run
    from panacea_train.evaluation.kept_replies import kept_replies
    from panacea_train.evaluation.sweep import SweepSettings
    from panacea_train.report import write_report

    is_demo = adapter is None and model is None and prompts is None and not reward
    base, adapter_folder, space = _checkpoints(model, adapter)
    if install and (adapter is None or not Path(adapter).expanduser().is_dir()):
        raise ConfigError("--install copies into the adapter's folder: it needs --adapter with a folder of your own")
    settings = SweepSettings(
        temperatures=tuple(temperature or (DEMO_TEMPERATURES if is_demo else SweepSettings.temperatures)),
        samples=samples,
        max_tokens=max_tokens or (DEMO_MAX_TOKENS if is_demo else SweepSettings.max_tokens),
        seed=seed,
    )
    config = EngineConfig(
        model=base,
        adapter=adapter_folder,
        dtype=dtype,
        device=device,
        max_batch=max_batch,
        max_step_tokens=max(max_batch, EngineConfig.max_step_tokens),
        threads=threads,
    )
    points = _points(space, grid, preferences)
    corner = None if reference is None else _reference_point(reference, space.names)
    exam = _demo_exam(seed, limit, system) if is_demo else _exam(prompts, limit, system, reward or (), space, device)
    notes = {
        "prompts": exam.prompts_in_words,
        "preferences": points.in_words,
        "rewards": exam.rewards_in_words,
        "answers": f"at most {settings.max_tokens} tokens, seed {seed}",
    }
    with (
        kept_replies(Path(f"{out.absolute()}{UNFINISHED}"), _say) as kept,
        new_folder(out, overwrite=overwrite, replaces=Contents("evaluation", (ANSWERS_FILE,))) as folder,
    ):
        per_prompt = sum(settings.samples_at(each) for each in settings.temperatures)
        counts = len(points.preferences), len(exam.prompts), per_prompt
        said = [
            f"{n:,} {word}{'s' * (n != 1)}" for n, word in zip(counts, ("preference", "prompt", "answer"), strict=True)
        ]
        _say(f"{' x '.join(said)} = {math.prod(counts):,} answers")
        run = run_evaluation(
            name or ("Panacea demo" if adapter is None else Path(adapter).resolve().name),
            config,
            space.names,
            points.preferences,
            exam.prompts,
            exam.scorer,
            settings,
            reference_point=corner or exam.reference_point,
            notes=notes,
            kept=kept,
        )
        write_run(run, folder)
        write_report([run], folder / REPORT_FILE)
    _print([run])
    _say(f"Now look at {out / REPORT_FILE}; evaluation.json, points.csv and answers.jsonl lie beside it.")
    if install:
        install_run(run, adapter_folder)
        _say(f"Installed in the adapter. Now: panacea serve --adapter {adapter}")


@eval_app.command("compare")
def compare(
    evaluation: Annotated[
        list[str],
        typer.Argument(metavar="NAME=DIR...", help="A name, and a folder that panacea eval --out has written."),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The new folder. It appears as a whole or not at all.")
    ] = Path("runs/comparison"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace --out, if that is a comparison, once the new is complete.")
    ] = False,
    reference: _Reference = None,
) -> None:
    """Set evaluations beside each other: one reference point for all, and intervals of their differences.

        panacea eval compare soup=runs/soup panacea=runs/panacea --out runs/comparison

    Their dimensions must be the same. Where their prompts are too, differences are paired: both are resampled with the
    same prompts.
    """
    from panacea_train.convert.output_folder import Contents, new_folder
    from panacea_train.evaluation.comparison import (
        COMPARISON_FILE,
        compare_runs,
        with_common_reference,
        write_comparison,
    )
    from panacea_train.evaluation.evaluation_run import read_run
    from panacea_train.report import write_report

    runs: list[Run] = []
    for text in evaluation:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise ConfigError(f"{text}: write NAME=DIR, a name and the folder of an evaluation")
        runs.append(read_run(Path(folder).expanduser(), name))
    corner = None if reference is None else _reference_point(reference, runs[0].evaluation.dimensions)
    with new_folder(out, overwrite=overwrite, replaces=Contents("comparison", (COMPARISON_FILE,))) as new:
        runs = with_common_reference(runs, corner)
        comparison = compare_runs(runs)
        write_comparison(comparison, new)
        write_report(runs, new / REPORT_FILE, comparison.differences)
    _print(runs)
    for difference in comparison.differences:
        typer.echo(_in_words(difference))
    _say(f"Now look at {out / REPORT_FILE}; comparison.json and comparison.csv lie beside it.")


@dataclass(frozen=True)
class _Points:
    preferences: list[Preference]
    in_words: str


@dataclass(frozen=True)
class _Exam:
    """What is asked and how it is judged."""

    prompts: "list[Prompt]"
    prompts_in_words: str
    scorer: "Scorer"
    rewards_in_words: str
    reference_point: tuple[float, ...] | None = None


def _checkpoints(model: str | None, adapter: str | None) -> tuple[Path, Path, PreferenceSpace]:
    """Local folders of base and adapter, and the adapter's preference space."""
    from panacea.model.adapter_config import AdapterConfig
    from panacea.model.hub import local_folder

    if adapter is None and model is not None:
        raise ConfigError("--adapter is missing: a base model alone has no preferences")
    folder = DEMO_ADAPTER if adapter is None else local_folder(adapter)
    config = AdapterConfig.read(folder)
    if not config.space.dimensions:
        raise ConfigError(f"{folder} has no dimensions: there are no preferences to evaluate it at")
    return local_folder(str(model or config.base_of(folder))), folder, config.space


def _points(space: PreferenceSpace, grid: int | None, file: Path | None) -> _Points:
    from panacea_train.evaluation.preference_lists import grid_of, read_preferences

    if file is not None:
        if grid is not None:
            raise ConfigError("--grid and --preferences both say which preferences are asked: one of them must go")
        points = read_preferences(file, space)
        return _Points(points, f"the {len(points)} of {file.name}")
    divisions = grid or DEFAULT_GRID
    points = grid_of(space, divisions)
    return _Points(points, f"the {len(points)} whose weights are multiples of 1/{divisions}")


def _exam(
    file: Path | None,
    limit: int | None,
    system: str | None,
    rewards: Sequence[str],
    space: PreferenceSpace,
    device: Device,
) -> _Exam:
    from panacea_train.evaluation.answer_rewards import RewardScorer
    from panacea_train.prompts import choose_prompts, read_prompts, with_system
    from panacea_train.rewards import read_reward

    if file is None:
        raise ConfigError("--prompts is missing: a file with what the model is asked")
    specs = _specs(rewards, space)
    every = read_prompts(file)
    prompts = choose_prompts(every, limit)
    asked = prompts if system is None else with_system(prompts, system)
    # One that judges several dimensions is there once.
    found = {spec: read_reward(spec, device) for spec in dict.fromkeys(specs.values())}
    return _Exam(
        asked,
        f"{_of(len(prompts), len(every))} in {file.name}{_behind(system)}",
        RewardScorer({name: found[specs[name]] for name in space.names}),
        "; ".join(f"{name}: {described(specs[name])}" for name in space.names),
    )


def _demo_exam(seed: int, limit: int | None, system: str | None) -> _Exam:
    from panacea_lab.demo.judging import REFERENCE_POINT, WorldScorer, demo_prompts
    from panacea_train.prompts import choose_prompts, with_system

    every = demo_prompts(seed)
    prompts = choose_prompts(every, limit or DEMO_LIMIT)
    return _Exam(
        prompts if system is None else with_system(prompts, system),
        f"{_of(len(prompts), len(every))} of the demo's held-out questions{_behind(system)}",
        WorldScorer(),
        "rules that read the answer's phrases: panacea_lab/world/world_judge.py",
        REFERENCE_POINT,
    )


def _specs(rewards: Sequence[str], space: PreferenceSpace) -> dict[str, str]:
    """What judges each dimension."""
    specs: dict[str, str] = {}
    for text in rewards:
        name, equals, spec = text.partition("=")
        if not (name and equals and spec):
            raise ConfigError(f"--reward {text}: write NAME=REWARD, a dimension's name and what judges it")
        if name not in space.names:
            raise ConfigError(f"--reward {text}: the adapter has no dimension {name} ({space.listed})")
        if name in specs:
            raise ConfigError(f"--reward: there are two for {name}")
        specs[name] = spec
    missing = [name for name in space.names if name not in specs]
    if missing:
        raise ConfigError(f"--reward is missing for {', '.join(missing)}: each dimension needs one ({space.listed})")
    return specs


def described(spec: str) -> str:
    """A reward for the evaluation's notes, which a server publishes: no folders, and no arguments of a command."""
    plain = spec.lstrip("-")
    sign = "minus " if (len(spec) - len(plain)) % 2 else ""
    kind, _, rest = plain.partition(":")
    match kind:
        case "command":
            return f"{sign}a command, {Path(shlex.split(rest)[0]).name}"
        case "model":
            return f"{sign}the reward model {Path(rest).name}"
        case "classifier":
            return f"{sign}the text classifier {Path(rest).name}"
        case "python":
            return f"{sign}{rest.rpartition('/')[2]}"
        case _:
            return f"{sign}{kind}:{rest}"


def _of(some: int, every: int) -> str:
    return f"all {every:,}" if some == every else f"{some:,} of {every:,}, evenly,"


def _reference_point(text: str, dimensions: Sequence[str]) -> tuple[float, ...]:
    """What --reference was given, in the order of the dimensions."""
    given = read_weights("--reference", text)
    listed = ", ".join(dimensions)
    if isinstance(given, dict):
        unknown = [name for name in given if name not in dimensions]
        missing = [name for name in dimensions if name not in given]
        if unknown or missing:
            wrong = f"there is no dimension {unknown[0]}" if unknown else f"{missing[0]} is missing"
            raise ConfigError(f"--reference {text}: {wrong} (dimensions: {listed})")
        given = [given[name] for name in dimensions]
    if len(given) != len(dimensions):
        raise ConfigError(f"--reference {text}: {len(given)} numbers for {len(dimensions)} dimensions ({listed})")
    if not all(map(math.isfinite, given)):
        raise ConfigError(f"--reference {text}: the numbers must be finite")
    return tuple(given)


def _behind(system: str | None) -> str:
    return "" if system is None else ", behind a system prompt"


def _print(runs: "Sequence[Run]") -> None:
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
    typer.echo(text, err=True)
