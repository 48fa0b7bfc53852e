"""The settings of one training run: the options of `panacea train`, with its texts read. No torch."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from panacea.errors import ConfigError
from panacea_train.data import TrainingFile
from panacea_train.training_options import (
    AdapterOptions,
    BaseOptions,
    LossOptions,
    MemoryOptions,
    ObjectiveOptions,
    ScheduleOptions,
    StepOptions,
)


@dataclass(frozen=True)
class RunSettings(
    ObjectiveOptions, LossOptions, AdapterOptions, ScheduleOptions, StepOptions, MemoryOptions, BaseOptions
):
    """How a run trains. The inherited options are documented in `training_options`."""

    model: str
    """The base: a folder or a hub id."""
    ideal: tuple[float, ...] | None = None
    """Tchebycheff's ideal point; None: 0."""
    targets: tuple[str, ...] | None = None
    """Last parts of module names; None: every linear layer of attention and MLP."""
    default_preference: tuple[float, ...] = ()

    def check(self, dimensions: Sequence[str]) -> None:
        """Raises `ConfigError` for settings that contradict each other or the dimensions."""
        if not dimensions:
            raise ConfigError("no line names a dimension, so there is nothing to steer: give one with --dimension")
        if self.aggregation == "reward" and self.objective == "dpo":
            raise ConfigError("--aggregation reward chooses an answer to imitate: it needs --objective sft")
        if self.ideal is not None and self.aggregation != "tchebycheff":
            raise ConfigError("--ideal is Tchebycheff's ideal point: it needs --aggregation tchebycheff")
        if self.label_temperature and self.objective == "sft":
            raise ConfigError("--label-temperature softens the labels of pairs: it needs --objective dpo")
        if self.batch_size % self.accumulation:
            raise ConfigError(f"--batch-size {self.batch_size} is not a multiple of --accumulation {self.accumulation}")
        if self.shared_columns == 0 and self.scaling is None:
            raise ConfigError("--shared-columns 0 needs --scaling: the paper's is 512 / their number")
        for name, numbers in (("ideal", self.ideal), ("default", self.default_preference or None)):
            if numbers is not None and len(numbers) != len(dimensions):
                listed = ", ".join(dimensions)
                raise ConfigError(f"--{name} has {len(numbers)} numbers for {len(dimensions)} dimensions ({listed})")

    def describe(self, file: TrainingFile) -> dict[str, Any]:
        """All that decides what a run learns, as `settings.json` and `training.json` keep it."""
        described = asdict(self)
        described["initializer_std"] = described.pop("init_std")
        described["one_scale_per_matrix"] = not described.pop("scale_per_column")
        content: dict[str, Any] = json.loads(json.dumps(described))
        return content | {"dimensions": list(file.dimensions), "data": sha256(file.path.read_bytes()).hexdigest()}
