"""How `PanaceaTrainer` trains: what a training run shares with it, and what a program may choose besides."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from panacea.errors import ConfigError
from panacea_train.training_examples import Demonstration, Example
from panacea_train.training_options import RATES, LossAggregation, LossOptions, MemoryOptions, Selection, StepOptions


@dataclass(frozen=True)
class TrainingConfig(LossOptions, StepOptions, MemoryOptions):
    """How to train. Rates and weights without another source are those of the trial that steered best.

    The inherited options are documented in `training_options`.
    """

    output_dir: Path
    """Checkpoints are written here, if any are."""
    steps: int
    bf16: bool = False
    """Matrix products in bfloat16. Load the base in bfloat16 too; the adapter is kept and updated in float32."""

    learning_rate: float = RATES["dpo"][0]
    """Of A and B, or of all parameters of a model without adapter. The default suits DPO; SFT needs twice as much."""
    singular_value_learning_rate: float = RATES["dpo"][1]
    """Of E. It must be far higher than that of A and B: with one rate for all (2e-4) nothing was steered. SFT: 3e-2."""
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = 1.0

    selection: Selection = "reward"
    """Which of an example's `Candidates` is learned: "reward" the one with the largest preference-weighted reward;
    "loss" the best of each dimension, each with its weight (linear scalarisation as in the paper)."""
    aggregation: LossAggregation = "linear"
    """How the losses of all dimensions become one; see `objectives`. "tchebycheff" needs the selection "loss", and all
    examples of a step share one preference."""
    ideal: tuple[float, ...] | None = None
    """Tchebycheff's ideal point, a lower bound of each dimension's loss; None: 0."""
    fixed_preference: tuple[float, ...] | None = None
    """Train under this preference alone, with the same objective: an ordinary adapter, like peft's LoRA, becomes the
    policy of one preference."""

    logging_steps: int = 20
    health_steps: int | None = 100
    """Measure the preference gap and the vertices' losses every N steps; None: never."""
    save_steps: int | None = None
    """Write a checkpoint every N steps and keep the last; None: never."""
    tensorboard: Path | None = None
    """Write what is logged here too, for TensorBoard, which must be installed."""
    progress: bool = True

    def check(self, examples: Sequence[Example], dimensions: int) -> None:
        """Raises `ConfigError` for values that contradict each other, the examples or the number of dimensions."""
        if self.batch_size % self.accumulation:
            raise ConfigError(f"{self.accumulation} forwards cannot share {self.batch_size} examples equally")
        if self.ideal is not None and len(self.ideal) != dimensions:
            raise ConfigError(f"the ideal point has {len(self.ideal)} numbers for {dimensions} dimensions")
        if self.fixed_preference is not None and len(self.fixed_preference) != dimensions:
            raise ConfigError(
                f"the fixed preference has {len(self.fixed_preference)} numbers for {dimensions} dimensions"
            )
        if self.aggregation != "tchebycheff":
            return
        if dimensions == 0:
            raise ConfigError("Tchebycheff aggregates the losses of dimensions, and this model has none")
        if self.selection != "loss":
            raise ConfigError("Tchebycheff aggregates losses, so the selection must be by loss too")
        if any(isinstance(example, Demonstration) and example.preference is not None for example in examples):
            raise ConfigError("with Tchebycheff a whole step has one preference, so no example can bring its own")
