"""The options of a training run, each declared once: for `panacea train`, `RunSettings`, the trainer and the demo.

A field's docstring is the text of `panacea train --help`. No torch, so that help is instant. Rates and weights without
another source are those of the trial that steered best; the others are the paper's (arXiv 2402.02030).
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from panacea.bounds import Bounded, Bounds, Count, Natural

Objective = Literal["sft", "dpo"]
LossAggregation = Literal["linear", "tchebycheff"]
Aggregation = Literal[LossAggregation, "reward"]
Selection = Literal["reward", "loss"]
TrainingDType = Literal["auto", "float32", "bfloat16"]
TrainingDevice = Literal["auto", "cpu"]
Seed = Annotated[int, Bounds(least=0, most=2**32 - 1)]
"""numpy's old generator, which transformers seeds too, takes no more bits."""

RATES: dict[Objective, tuple[float, float]] = {"sft": (2e-3, 3e-2), "dpo": (1e-3, 2e-2)}
"""Learning rates of A and B, and of the singular values, that steered best in trials with models of 1 M parameters."""

_Small = Annotated[float, Bounds(least=1e-6, most=1e6)]
_Rate = Annotated[float, Bounds(least=1e-9, most=1e6)]
_Weight = Annotated[float, Bounds(least=0, most=1e6)]
_Columns = 4096
"""Most columns of a kind: as many as a hidden state of a model of 7 B parameters has numbers."""
_Steps = 10**9


@dataclass(frozen=True, kw_only=True)
class LossOptions(Bounded):
    """The loss of a step, and the preferences that it draws."""

    beta: _Small = 0.3
    """DPO: how strongly the model stays near the base."""
    sft_weight: _Weight = 0.1
    """DPO: weight of an SFT term on preferred answers. Without it the text degenerates."""
    vertex_probability: Annotated[float, Bounds(least=0, most=1)] = 0.3
    """How often one dimension has all the weight. Otherwise the preference is drawn from a Dirichlet distribution, as
    the paper always does."""
    dirichlet_alpha: Annotated[float, Bounds(least=1e-3)] = 1.0
    """Concentration of the Dirichlet distribution. 1 is uniform; less is nearer to edges and vertices."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveOptions(Bounded):
    """What is learned."""

    objective: Objective = "dpo"
    """dpo learns from comparisons, sft imitates the best answers."""
    aggregation: Aggregation = "linear"
    """How dimensions become one. linear: the weighted sum of their losses. tchebycheff: the largest weighted loss.
    reward: for sft, the answer with the largest weighted score (not the paper's)."""
    label_temperature: _Weight = 0.0
    """DPO on scores: a is better with probability sigmoid(difference / this). 0: the higher score always wins."""


@dataclass(frozen=True, kw_only=True)
class AdapterOptions(Bounded):
    """The shape of the adapter, and its start."""

    shared_columns: Annotated[int, Bounds(least=0, most=_Columns)] = 8
    """k: columns that all preferences share. More columns learn more."""
    columns_per_dimension: Annotated[int, Bounds(least=1, most=_Columns)] = 1
    """Columns of each dimension. More than the paper's 1 steer more finely."""
    scaling: _Small | None = None
    """Factor before the product. Default: 512 / k, the paper's."""
    init_std: _Small = 0.02
    """A and B start as N(0, this). E starts at 0."""
    scale_per_column: bool = False
    """Train a singular value for each preference column. The paper has one for all columns of a matrix."""


@dataclass(frozen=True, kw_only=True)
class StepOptions(Bounded):
    """A step, and how it updates the weights."""

    batch_size: Count = 16
    """Examples in a step. A pair is one example."""
    warmup_steps: Annotated[int, Bounds(least=0, most=_Steps)] = 50
    """Steps to warm up. A run never warms up for more than a tenth of its steps."""
    weight_decay: _Weight = 0.0
    """Weight decay of A and B."""  # or of the matrices of a model without adapter; E, norms and biases never decay
    seed: Seed = 0
    """The same seed gives the same adapter."""


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions(Bounded):
    """How long a run trains, at which rates, and what it measures and saves."""

    epochs: _Small = 1.0
    """Passes over the data."""
    steps: Annotated[int, Bounds(least=1, most=_Steps)] | None = None
    """Number of steps, instead of --epochs."""
    learning_rate: _Rate | None = None
    """Learning rate of A and B. Default: 1e-3 for dpo, 2e-3 for sft."""
    singular_value_learning_rate: _Rate | None = None
    """Learning rate of E, which must be far higher. Default: 2e-2 for dpo, 3e-2 for sft."""
    held_out: Natural | None = None
    """Lines that are measured and not trained on. Default: a twentieth, at most 64. 0: measure on trained lines."""
    health_steps: Count = 50
    """Measure the preference gap every N steps."""
    save_steps: Count = 200
    """Write a checkpoint every N steps."""


@dataclass(frozen=True, kw_only=True)
class MemoryOptions(Bounded):
    """Where a step computes, and how it saves memory."""

    accumulation: Count = 1
    """Forwards that share a step, to save memory. They do not change it. Must divide --batch-size."""
    gradient_checkpointing: bool = False
    """Compute each layer again in the backward pass, to save memory. A third slower."""
    device: TrainingDevice = "auto"
    """Where the training runs. auto: a GPU if there is one, else the CPU."""


@dataclass(frozen=True, kw_only=True)
class BaseOptions(Bounded):
    """How the base model and the examples are held."""

    max_tokens: Annotated[int, Bounds(least=2)] = 2048
    """Longest example in tokens. Longer ones are left out."""
    dtype: TrainingDType = "auto"
    """Number format of the base. The adapter is always float32. auto: bfloat16 on a GPU, float32 on a CPU."""
