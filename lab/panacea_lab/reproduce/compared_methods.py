"""The methods that are compared. Each ends as one adapter that the engine serves, so that all are asked alike."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from peft import LoraConfig
from transformers.trainer_callback import PrinterCallback

from panacea.preference import Preference
from panacea_lab.demo.adapter_training import ReportCallback, adapt, train_adapter, training_config
from panacea_lab.reproduce.comparison_settings import ReproduceSettings
from panacea_lab.reproduce.rate_search import Rates
from panacea_lab.world.world_judge import DIMENSIONS
from panacea_train.convert.soup import convert_soup
from panacea_train.pareto import simplex_grid
from panacea_train.trainer import PanaceaTrainer
from panacea_train.training_examples import PreferencePair

COLUMNS = 11
"""Rank of each LoRA adapter: that of Panacea's adapter, 8 shared columns and one for each dimension."""
Stepped = Callable[[], None]
"""Is called after each step of training."""


@dataclass(frozen=True)
class Lesson:
    """What a method may learn from, and how long."""

    base: Path
    pairs: Sequence[PreferencePair]
    reference: NDArray[np.float32]
    """(pairs, 2): the answers' log-probabilities under the base."""
    settings: ReproduceSettings
    rates: Rates
    seed: int

    def part(self, number: int, of: int) -> tuple[list[PreferencePair], NDArray[np.float32], int]:
        """Pairs, their reference and steps of one of several policies that share the method's steps.

        Each policy draws its own pairs, as many as its steps take, so that all methods see equally many.
        """
        steps = self.settings.steps // of
        rng = np.random.default_rng((self.seed, number))
        chosen = rng.permutation(len(self.pairs))[: steps * self.settings.adapter.batch_size]
        return [self.pairs[i] for i in chosen], self.reference[chosen], steps


class Method(ABC):
    """A way to have a policy for each preference."""

    name: str
    title: str
    description: str

    adapters: int
    """That share the method's steps."""
    has_factor = False
    """Whether there is a second learning rate."""

    @abstractmethod
    def train(self, lesson: Lesson, folder: Path, stepped: Stepped) -> Path:
        """Trains within the lesson's steps, writes below `folder`, and returns the adapter to serve."""

    @abstractmethod
    def points(self, settings: ReproduceSettings) -> list[tuple[Preference, Preference]]:
        """The preferences that are asked for, and for each the one that the served adapter gets."""


class PanaceaMethod(Method):
    name = "panacea"
    title = "Panacea"
    description = "one SVD-LoRA adapter whose singular values are the preference"
    adapters = 1
    has_factor = True

    def train(self, lesson: Lesson, folder: Path, stepped: Stepped) -> Path:
        pairs, reference, steps = lesson.part(0, 1)
        settings = replace(
            lesson.settings.adapter,
            steps=steps,
            warmup_steps=_warmup(lesson, steps),
            learning_rate=lesson.rates.learning_rate,
            singular_value_learning_rate=lesson.rates.learning_rate * lesson.rates.factor,
        )
        adapter = folder / "adapter"
        train_adapter(lesson.base, pairs, settings, adapter, lesson.seed, lambda _share, _figures: stepped(), reference)
        return adapter

    def points(self, settings: ReproduceSettings) -> list[tuple[Preference, Preference]]:
        return [(point, point) for point in simplex_grid(len(DIMENSIONS), settings.grid_divisions)]


class SoupMethod(Method):
    name = "soup"
    title = "Rewarded soups"
    description = "one LoRA adapter per dimension, their weights mixed by the preference (arXiv 2306.04488)"
    adapters = len(DIMENSIONS)

    def train(self, lesson: Lesson, folder: Path, stepped: Stepped) -> Path:
        return _train_policies(lesson, simplex_grid(len(DIMENSIONS), 1), folder, stepped)

    def points(self, settings: ReproduceSettings) -> list[tuple[Preference, Preference]]:
        # The order of the policies is that of the vertices, so the weights are the preference.
        return [(point, point) for point in simplex_grid(len(DIMENSIONS), settings.grid_divisions)]


class DiscreteMethod(Method):
    name = "discrete"
    title = "Discrete policies"
    description = "one LoRA adapter for each of a few preferences, trained for it alone"

    def __init__(self, divisions: int) -> None:
        self._preferences = simplex_grid(len(DIMENSIONS), divisions)
        self.adapters = len(self._preferences)

    def train(self, lesson: Lesson, folder: Path, stepped: Stepped) -> Path:
        return _train_policies(lesson, self._preferences, folder, stepped)

    def points(self, settings: ReproduceSettings) -> list[tuple[Preference, Preference]]:
        # A policy is the vertex of its own dimension.
        return list(zip(self._preferences, simplex_grid(self.adapters, 1), strict=True))


def methods(settings: ReproduceSettings) -> list[Method]:
    return [PanaceaMethod(), SoupMethod(), DiscreteMethod(settings.discrete_divisions)]


def _train_policies(lesson: Lesson, preferences: Sequence[Preference], folder: Path, stepped: Stepped) -> Path:
    """A LoRA adapter for each preference, side by side in one adapter that has a dimension for each of them."""
    parts: dict[str, Path] = {}
    for number, preference in enumerate(preferences):
        parts[f"policy_{number}"] = folder / "policies" / str(number)
        _train_lora(lesson, number, len(preferences), tuple(preference), parts[f"policy_{number}"], stepped)
    convert_soup(parts, folder / "adapter", model=str(lesson.base))
    return folder / "adapter"


def _train_lora(
    lesson: Lesson, number: int, of: int, preference: tuple[float, ...], folder: Path, stepped: Stepped
) -> None:
    pairs, reference, steps = lesson.part(number, of)
    seed = lesson.seed * 100 + number
    # alpha / r = 2, the most common choice; the learning rate is what is tuned.
    config = LoraConfig(r=COLUMNS, lora_alpha=2 * COLUMNS, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = adapt(lesson.base, config, seed)
    settings = replace(
        lesson.settings.adapter,
        steps=steps,
        warmup_steps=_warmup(lesson, steps),
        learning_rate=lesson.rates.learning_rate,
    )
    training = replace(training_config(settings, folder, seed), fixed_preference=preference)
    trainer = PanaceaTrainer(adapted, pairs, training, reference=reference)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ReportCallback(lambda _share, _figures: stepped()))
    trainer.train()
    with warnings.catch_warnings():
        # peft looks for the base's vocabulary, to see whether it grew.
        warnings.simplefilter("ignore")
        adapted.save_pretrained(str(folder))


def _warmup(lesson: Lesson, steps: int) -> int:
    return max(1, round(steps * lesson.settings.warmup_share))
