"""What `panacea eval` asks and how answers are judged: from the options' texts to prompts, preferences and rewards."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from panacea.bounds import Bounded, Count
from panacea.config import Device
from panacea.errors import ConfigError
from panacea.preference import Preference, PreferenceSpace
from panacea_commands.option_values import read_weights

if TYPE_CHECKING:
    from panacea_train.evaluation.answer_rewards import Scorer
    from panacea_train.prompts import Prompt

DEMO_LIMIT = 40
"""Of the demo's 100 questions, so that its evaluation takes seconds. With all of them and --samples 4 it is the
evaluation that comes with the demo."""
DEFAULT_GRID = 4


@dataclass(frozen=True)
class JudgedOptions(Bounded):
    """What the model is asked, and how its answers are judged."""

    prompts: Annotated[Path | None, Parameter(metavar="FILE")] = None
    """JSON Lines with prompt or messages, or a .txt with one prompt per line."""
    limit: Count | None = None
    """Most prompts to ask, chosen evenly over the file."""
    system: Annotated[str | None, Parameter(metavar="TEXT", allow_leading_hyphen=True)] = None
    """A system prompt before each prompt."""
    reward: Annotated[tuple[str, ...], Parameter(metavar="NAME=REWARD")] = ()
    """A dimension and its judge, once for each dimension: python:FILE.py:function, model:DIR, classifier:DIR#LABEL,
    command:PROGRAM or rule:concise:40. With - in front of the judge less is better. See docs/rewards.md."""


@dataclass(frozen=True)
class PointOptions(Bounded):
    """The preferences to evaluate."""

    grid: Annotated[Count | None, Parameter(metavar="N")] = None
    """All preferences whose weights are multiples of 1/N. Default: 4."""
    preferences: Annotated[Path | None, Parameter(metavar="FILE")] = None
    """Instead of --grid: a JSON list, or one per line, of weights by name, lists of weights, or presets' names."""


@dataclass(frozen=True)
class Points:
    """The preferences that are evaluated."""

    preferences: list[Preference]
    in_words: str


@dataclass(frozen=True)
class Exam:
    """The prompts, and the judge of their answers."""

    prompts: "list[Prompt]"
    prompts_in_words: str
    scorer: "Scorer"
    rewards_in_words: str
    reference_point: tuple[float, ...] | None = None


def choose_points(options: PointOptions, space: PreferenceSpace) -> Points:
    """The preferences that the options name. Raises `ConfigError`."""
    from panacea_train.evaluation.preference_lists import grid_of, read_preferences

    if options.preferences is not None:
        if options.grid is not None:
            raise ConfigError("--grid and --preferences both choose the preferences: give one of them")
        points = read_preferences(options.preferences, space)
        return Points(points, f"the {len(points)} of {options.preferences.name}")
    divisions = options.grid or DEFAULT_GRID
    points = grid_of(space, divisions)
    return Points(points, f"the {len(points)} whose weights are multiples of 1/{divisions}")


def make_exam(options: JudgedOptions, space: PreferenceSpace, device: Device) -> Exam:
    """The user's prompts and rewards. Raises `ConfigError` if one is missing or cannot be used."""
    from panacea_train.evaluation.answer_rewards import RewardScorer
    from panacea_train.prompts import choose_prompts, read_prompts, with_system
    from panacea_train.rewards import read_reward

    if options.prompts is None:
        raise ConfigError("--prompts is missing: give a file with the model's prompts")
    specs = _specs(options.reward, space)
    every = read_prompts(options.prompts)
    prompts = choose_prompts(every, options.limit)
    # A reward of several dimensions is loaded once.
    found = {spec: read_reward(spec, device) for spec in dict.fromkeys(specs.values())}
    return Exam(
        prompts if options.system is None else with_system(prompts, options.system),
        f"{_of(len(prompts), len(every))} in {options.prompts.name}{_behind(options.system)}",
        RewardScorer({name: found[specs[name]] for name in space.names}),
        "; ".join(f"{name}: {described(specs[name])}" for name in space.names),
    )


def make_demo_exam(options: JudgedOptions, seed: int) -> Exam:
    """The demo's held-out questions and its own judge."""
    from panacea_lab.demo.judging import REFERENCE_POINT, WorldScorer, demo_prompts
    from panacea_train.prompts import choose_prompts, with_system

    every = demo_prompts(seed)
    prompts = choose_prompts(every, options.limit or DEMO_LIMIT)
    return Exam(
        prompts if options.system is None else with_system(prompts, options.system),
        f"{_of(len(prompts), len(every))} of the demo's held-out questions{_behind(options.system)}",
        WorldScorer(),
        "rules that read the answer's phrases: panacea_lab/world/world_judge.py",
        REFERENCE_POINT,
    )


def _specs(rewards: Sequence[str], space: PreferenceSpace) -> dict[str, str]:
    """The reward of each dimension."""
    specs: dict[str, str] = {}
    for text in rewards:
        name, equals, spec = text.partition("=")
        if not (name and equals and spec):
            raise ConfigError(f"--reward {text}: write NAME=REWARD, a dimension's name and its judge")
        if name not in space.names:
            raise ConfigError(f"--reward {text}: the adapter has no dimension {name} ({space.listed})")
        if name in specs:
            raise ConfigError(f"--reward {text}: the dimension {name} has a reward already; give one for each")
        specs[name] = spec
    missing = [name for name in space.names if name not in specs]
    if missing:
        raise ConfigError(f"--reward is missing for {', '.join(missing)}: give one for each dimension ({space.listed})")
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


def read_reference(text: str, dimensions: Sequence[str]) -> tuple[float, ...]:
    """The numbers of --reference, in the order of the dimensions. Raises `ConfigError`."""
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
