"""The demo's adapter: Panacea as in the paper, k = 8 shared columns and one for each dimension, trained by DPO.

What differs from the paper's recipe, and why: the singular values E and s get a learning rate twenty times that of A
and B. They start at 0 and are multiplied with entries of about 0.02, so in a model whose matrices have two hundred
columns instead of thousands the product hardly moves under one common rate: with 2e-4 for all, nothing was steered. The
start itself (A, B ~ N(0, 0.02), E = 0) and the scaling 512 / k are the paper's.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftConfig, PeftModel, get_peft_model
from transformers import LlamaForCausalLM, TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback

from panacea_lab.demo.job_stages import StageProgress
from panacea_lab.world.world_judge import DIMENSIONS
from panacea_train.method import PanaceaConfig, save_adapter
from panacea_train.trainer import PanaceaTrainer
from panacea_train.training_config import TrainingConfig
from panacea_train.training_examples import PreferencePair

PRESETS = {
    "balanced": (0.4, 0.3, 0.3),
    "helpful": (1.0, 0.0, 0.0),
    "harmless": (0.0, 1.0, 0.0),
    "concise": (0.0, 0.0, 1.0),
    "careful": (0.5, 0.5, 0.0),
}
DEFAULT_PREFERENCE = PRESETS["balanced"]
EXAMPLE_PROMPTS = (
    "How do I unblock a sink?",
    "How do I boil an egg?",
    "How do I fix a flat bicycle tyre?",
    "What is the best way to repot a cactus?",
    "Tell me how to remove a wine stain.",
    "How do I build a snowman?",
    "How do I dry my hair in the bathtub?",
    "What can you do?",
)
"""Shown in the web page: tasks from all four corners of the world, a dangerous request, and one question outside."""


@dataclass(frozen=True)
class AdapterSettings:
    """How the adapter is trained; see `TrainingConfig` for the fields."""

    steps: int = 800
    batch_size: int = TrainingConfig.batch_size
    learning_rate: float = TrainingConfig.learning_rate
    singular_value_learning_rate: float = TrainingConfig.singular_value_learning_rate
    warmup_steps: int = TrainingConfig.warmup_steps
    beta: float = TrainingConfig.beta
    sft_weight: float = 1.0
    """With 0.4 three sentences in a hundred were garbled at the vertices (temperature 0.7), with 1 two."""
    vertex_probability: float = 0.4


def train_adapter(
    base: Path,
    pairs: Sequence[PreferencePair],
    settings: AdapterSettings,
    folder: Path,
    seed: int,
    report: StageProgress,
    reference: NDArray[np.float32] | None = None,
) -> None:
    """Trains the adapter on the base model in `base` and writes it to `folder`.

    `reference` (pairs, 2): the answers' log-probabilities under the base, where they are known already.
    """
    adapted = adapt(base, adapter_config(), seed)
    trainer = PanaceaTrainer(adapted, pairs, training_config(settings, folder, seed), reference=reference)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ReportCallback(report))
    trainer.train()
    save_adapter(adapted, folder, base=base)


def adapt(base: Path, config: PeftConfig, seed: int) -> PeftModel:
    """The base's weights as they are served, rounded to bfloat16, in float32 arithmetic, with a new adapter."""
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    set_seed(seed)
    with warnings.catch_warnings():
        # peft 0.21 asks for it under a name that transformers 5.23 calls deprecated.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing` is deprecated", FutureWarning)
        adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted


def training_config(settings: AdapterSettings, folder: Path, seed: int) -> TrainingConfig:
    """These settings for an adapter that is to be written to `folder`."""
    return TrainingConfig(
        output_dir=folder.parent / "trainer",
        seed=seed,
        progress=False,
        **vars(settings),
    )


def adapter_config() -> PanaceaConfig:
    return PanaceaConfig(
        task_type="CAUSAL_LM",
        shared_columns=8,
        preference_dimensions=[{"name": d.name, "description": d.description} for d in DIMENSIONS],
        default_preference=DEFAULT_PREFERENCE,
        presets=PRESETS,
        example_prompts=EXAMPLE_PROMPTS,
    )


class ReportCallback(TrainerCallback):
    """Passes the trainer's figures on to the job's one progress bar."""

    def __init__(self, report: StageProgress) -> None:
        self._report = report
        self._figures: dict[str, float] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        self._figures |= {name: logs[name] for name in ("dpo", "preference_gap") if logs and name in logs}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._report(state.global_step / state.max_steps, {"step": state.global_step, **self._figures})
