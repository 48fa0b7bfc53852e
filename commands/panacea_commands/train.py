"""`panacea train`: its options, and what it prints."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from panacea.bounds import Bounded, Count
from panacea.errors import ConfigError
from panacea_commands.option_sources import FIELDS, new_app, panel
from panacea_commands.option_values import read_point
from panacea_train.training_options import (
    AdapterOptions,
    BaseOptions,
    LossOptions,
    MemoryOptions,
    ObjectiveOptions,
    ScheduleOptions,
    Seed,
    StepOptions,
)

SHOWN_PROBLEMS = 10

STEERS_NATS = 0.5
"""In trials the gap was about 1.5 after 100 steps when an adapter came to steer, and 0.2 when it did not."""

train_app = new_app(
    "train",
    help_epilogue="docs/training.md has the data formats and the formulas. `panacea train check FILE` checks a file of "
    "data without a model.",
)


_LEARNED, _ADAPTER, _STEPS = panel("What is learned"), panel("The adapter"), panel("Steps")
_MACHINE = panel("Machine")


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The training file's dimensions."""

    dimension: Annotated[tuple[str, ...], Parameter(metavar="NAME")] = ()
    """A dimension, in the adapter's order. May be repeated. Default: all dimensions in the data."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run reads and writes."""

    model: str
    """Base model: a folder or a hub id."""
    data: Path
    """Training data: a JSON Lines file."""
    out: Path
    """Folder for the adapter."""
    overwrite: bool = False
    """Replace --out, or an interrupted run."""
    resume: bool = False
    """Continue an interrupted run, with the same losses as without the interruption."""
    tensorboard: Path | None = None
    """Folder for TensorBoard's event files."""


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """Options of a run that are read from text."""

    target: Annotated[tuple[str, ...], Parameter(metavar="NAME", group=_ADAPTER.group)] = ()
    """Last part of the names of modules to adapt, like q_proj. May be repeated. Default: all linear layers of attention
    and MLP."""
    default: Annotated[str | None, Parameter(metavar="w,w,...", group=_ADAPTER.group)] = None
    """Preference of requests that give none. Default: equal weights."""
    ideal: Annotated[str | None, Parameter(metavar="z,z,...", allow_leading_hyphen=True, group=_LEARNED.group)] = None
    """Tchebycheff's ideal point: a lower bound of each dimension's loss. Default: 0."""


@train_app.default
def train(
    *,
    options: Annotated[RunOptions, FIELDS],
    data: Annotated[DataOptions, FIELDS] = DataOptions(),
    objective: Annotated[ObjectiveOptions, _LEARNED] = ObjectiveOptions(),
    loss: Annotated[LossOptions, _LEARNED] = LossOptions(),
    adapter: Annotated[AdapterOptions, _ADAPTER] = AdapterOptions(),
    texts: Annotated[TextOptions, FIELDS] = TextOptions(),
    schedule: Annotated[ScheduleOptions, _STEPS] = ScheduleOptions(),
    step: Annotated[StepOptions, _STEPS] = StepOptions(),
    memory: Annotated[MemoryOptions, _MACHINE] = MemoryOptions(),
    base: Annotated[BaseOptions, _MACHINE] = BaseOptions(),
) -> int:
    """Train an adapter for any causal language model, by the Panacea method (arXiv 2402.02030).

    It needs a base model and a file of data:

        panacea train --model ./my-model --data pairs.jsonl --out my-adapter

    The data is checked before a model is loaded. The adapter appears in --out when it is complete. Then serve it:

        panacea serve --adapter my-adapter
    """
    ideal, default_preference = read_point("--ideal", texts.ideal), read_point("--default", texts.default)
    try:
        # The file first: its problems show in less time than torch alone takes to be imported.
        from panacea_train.data import read_training_file, summarise

        file = read_training_file(options.data, data.dimension)
        _refuse(file.path, [str(problem) for problem in file.problems])
        from panacea_train.run_output import prepared_output
        from panacea_train.run_settings import RunSettings
        from panacea_train.training_run import train_adapter
    except ImportError as error:
        raise _more_packages(error) from None
    settings = RunSettings(
        options.model,
        ideal=ideal,
        targets=texts.target or None,
        default_preference=default_preference or (),
        **vars(objective),
        **vars(loss),
        **vars(adapter),
        **vars(schedule),
        **vars(step),
        **vars(memory),
        **vars(base),
    )
    settings.check(file.dimensions)
    out = options.out.expanduser().absolute()
    with prepared_output(settings, file, out, overwrite=options.overwrite, resume=options.resume, say=_say) as folders:
        _say(summarise(file))
        try:
            result = train_adapter(settings, file, folders, tensorboard=options.tensorboard, report=_say)
        except KeyboardInterrupt:
            _say("Interrupted. The same command with --resume continues from the last checkpoint.")
            return 130
    for name, vertex_loss in result.vertex_losses.items():
        _say(f"loss of {name} at its vertex: {vertex_loss:.3f}")
    if result.preference_gap is not None:
        _say(f"gap between matched and mismatched preference: {result.preference_gap:.2f} nats per answer")
        if result.preference_gap < STEERS_NATS:
            _say("That is little: the adapter hardly steers. docs/training.md says what to try.")
    _say(f"Trained in {result.steps:,} steps. Now: panacea serve --adapter {out}")
    return 0


@train_app.command
def check(
    data: Annotated[Path, Parameter(metavar="FILE", help="Training data: a JSON Lines file.")],
    /,
    *,
    options: Annotated[DataOptions, FIELDS] = DataOptions(),
) -> None:
    """Check training data without a model: list the problems by line and field, or print counts for each dimension."""
    try:
        from panacea_train.data import read_training_file, summarise
    except ImportError as error:
        raise _more_packages(error) from None
    file = read_training_file(data, options.dimension)
    _refuse(file.path, [str(problem) for problem in file.problems])
    print(summarise(file))


@dataclass(frozen=True, kw_only=True)
class DemoOptions(Bounded):
    """How the demo model is made."""

    out: Path = Path("runs/demo")
    """Folder for base, adapter and evaluation."""
    seed: Seed = 0
    """The same seed gives the same model on the same machine."""
    threads: Count = 1
    """CPU threads. One is fastest unless the machine is idle."""


@train_app.command
def demo(*, options: Annotated[DemoOptions, FIELDS] = DemoOptions()) -> None:
    """Train the embedded demo model from nothing: tokenizer, base, adapter, evaluation. Under an hour on two cores.

    An interrupted run continues where it stopped.
    """
    try:
        from panacea_lab.demo.demo_pipeline import train_demo
    except ImportError as error:
        raise _more_packages(error) from None
    train_demo(options.out, options.seed, threads=options.threads)


def _refuse(path: Path, problems: list[str]) -> None:
    if not problems:
        return
    for problem in problems[:SHOWN_PROBLEMS]:
        _say(problem)
    more = f" (the first {SHOWN_PROBLEMS} are shown)" if len(problems) > SHOWN_PROBLEMS else ""
    found = f"{len(problems):,} problem{'s' * (len(problems) > 1)}"
    raise ConfigError(f"{path} has {found}{more}; correct the file. No model is loaded")


def _more_packages(error: ImportError) -> ConfigError:
    return ConfigError(f"training needs more packages: pip install 'panacea-server[train]' ({error})")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
