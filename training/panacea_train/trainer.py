"""Trains a Panacea adapter, with SFT or DPO, on transformers' `Trainer`.

    from pathlib import Path

    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, set_seed
    from panacea_train.training_examples import Candidates, Demonstration, PreferencePair
    from panacea_train.method import PanaceaConfig, save_adapter, steered
    from panacea_train.trainer import PanaceaTrainer
    from panacea_train.training_config import TrainingConfig

    base = AutoModelForCausalLM.from_pretrained("runs/base")
    set_seed(0)                                             # the first values of A and B
    model = get_peft_model(base, PanaceaConfig(task_type="CAUSAL_LM",
        preference_dimensions=["helpful", "harmless", "concise"], default_preference=[0.4, 0.3, 0.3]))

    # Examples are token ids; an answer ends with the end-of-sequence token. Kinds may be mixed:
    examples = [
        PreferencePair(prompt_ids, a_ids, b_ids, (0.9, 0.5, 0.1)),      # DPO; P(a better) on each dimension
        Candidates(prompt_ids, [ids, ids, ids], [[r, r, r], ...]),      # SFT on what the drawn preference likes best
        Demonstration(prompt_ids, ids),                                 # SFT, the same answer under every preference
        Demonstration(prompt_ids, ids, preference=(0, 0.5, 0.5)),       # SFT, right for this preference
    ]
    trainer = PanaceaTrainer(model, examples, TrainingConfig(output_dir=Path("runs/adapter"), steps=800))
    trainer.train()                                         # or train(resume_from_checkpoint=True)
    save_adapter(model, "runs/final", base="runs/base", dtype=torch.bfloat16)

    with steered(model, {"helpful": 1}):                    # also a tensor (batch, 3); None is the bare base
        model.generate(...)

The same trainer trains a base model: give it one without adapter, and `Demonstration`s. (A prompt may be as short as
one token, so a whole text can be learned.)
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PretrainedConfig, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from panacea.errors import ConfigError
from panacea_train.answer_logprobs import reference_logprobs
from panacea_train.batches import Batch, Sampling, StepBatches
from panacea_train.dropout import without_dropout
from panacea_train.loss_means import LossMeans
from panacea_train.method import find_steering
from panacea_train.preference_gap import Probe, preference_gap, preference_probes, spread, vertex_losses
from panacea_train.step_loss import StepLoss, logprobs_of
from panacea_train.training_config import TrainingConfig
from panacea_train.training_examples import Example, check_example

HELD_OUT = 64
"""Examples that the vertices' losses and the preference gap are measured on."""

VERTEX_LOSS = "vertex_loss_"
"""The logged names of the vertices' losses begin with this and end with a dimension's name."""


class PanaceaTrainer(Trainer):
    """transformers' `Trainer` with batches that are a function of (seed, step), Panacea's objectives and two rates.

    It runs in one process, on one device.
    """

    def __init__(
        self,
        model: nn.Module,
        examples: Sequence[Example],
        config: TrainingConfig,
        *,
        probes: Sequence[Probe] | None = None,
        held_out: Sequence[Example] | None = None,
        reference: NDArray[np.float32] | None = None,
    ) -> None:
        """`model` is a causal language model with a Panacea adapter, or a bare one to be trained as a whole.

        With `config.fixed_preference` it may have an ordinary adapter as well, one that changes nothing yet: DPO
        compares with the model as it is now.

        The vertices' losses and the preference gap are measured on `held_out` examples; None takes some of `examples`.
        `probes`, if given, are what the gap is measured on. Pairs are scored by the bare base right here, once, with a
        progress bar, unless `reference` has their log-probabilities already, (examples, 2) as from
        `scoring.reference_logprobs`.

        Raises `ConfigError` for a configuration that contradicts itself or no examples, `ValueError` that names an
        example which does not fit the model.
        """
        self.config = config
        steering = find_steering(model)
        self.names = () if steering is None else steering.space.names
        fixed = config.fixed_preference
        self.dimensions = len(self.names) if steering is not None or fixed is None else len(fixed)
        config.check(examples, self.dimensions)
        model_config: PretrainedConfig = model.config  # type: ignore[assignment]  # of any model of transformers
        limit: int | None = getattr(model_config, "max_position_embeddings", None)
        for index, example in enumerate((*examples, *(held_out or ()))):
            try:
                check_example(example, self.dimensions, limit)
            except ValueError as error:
                raise ValueError(f"example {index}: {error}") from None
        if held_out is None:
            held_out = spread(examples, HELD_OUT)
        if probes is None:
            probes = preference_probes(held_out, len(self.names))
        without_dropout(model)
        self.held_out = held_out if self.names else ()
        self.probes = probes
        super().__init__(
            model=model,
            args=_arguments(
                config, measure_health=bool(probes or self.held_out), use_cache=getattr(model_config, "use_cache", True)
            ),
            # Only its presence is asked for: `evaluate` takes the probes.
            eval_dataset=cast(Any, [*probes, *self.held_out] or None),
        )
        if self.args.world_size > 1:
            raise ConfigError("PanaceaTrainer runs in one process")
        # Only now, because `Trainer` has moved the model to its device.
        sampling = Sampling(
            batch_size=config.batch_size,
            dimensions=self.dimensions,
            seed=config.seed,
            vertex_probability=config.vertex_probability,
            dirichlet_alpha=config.dirichlet_alpha,
            selection=config.selection,
            one_preference=config.aggregation == "tchebycheff",
            fixed=fixed,
            forwards=config.accumulation,
        )
        ideal = torch.tensor(config.ideal or (0.0,) * self.dimensions, device=self.args.device)
        self.step_loss = StepLoss(config.aggregation, config.beta, config.sft_weight, ideal)
        with self.accelerator.autocast():
            if reference is None:
                reference = reference_logprobs(model, examples, progress=config.progress)
            self._held_out_reference = reference_logprobs(model, self.held_out, progress=False)
        self.batches = StepBatches(examples, sampling, config.steps, reference)
        self.train_dataset = self.batches
        self.means = LossMeans()
        self.add_callback(self.means)
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        if config.progress:
            self.add_callback(OneLineProgress())
        if config.tensorboard is not None:
            self.add_callback(_tensorboard(config.tensorboard))

    def get_train_dataloader(self) -> DataLoader[Batch]:
        """The steps' batches in order, whole, as `StepBatches` made them."""
        loader = DataLoader(self.batches, batch_size=1, collate_fn=itemgetter(0))
        prepared: DataLoader[Batch] = self.accelerator.prepare(loader)
        return prepared

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with a group for A and B (or everything else) and one for E."""
        if self.optimizer is None:  # pyright: ignore[reportUnnecessaryComparison]  # it is, before the first call
            config = self.config
            assert self.model is not None
            groups = parameter_groups(self.model, config.singular_value_learning_rate, config.weight_decay)
            self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, weight_decay=0.0)
        return self.optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The loss of a step, a scalar with its graph: all forwards are in memory at once. See `StepLoss`."""
        batch = cast(Batch, inputs)
        return self.step_loss(batch, logprobs_of(model, batch)).loss

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The gradient of a step, with one forward in memory at a time; returns its loss without a graph."""
        model.train()
        batch = cast(Batch, self._prepare_inputs(inputs))
        parts = self.step_loss.backward(model, batch, self._precision)
        self.means.add(parts)
        return parts.loss

    def _precision(self) -> AbstractContextManager[None]:
        context: AbstractContextManager[None] = self.accelerator.autocast()
        return context

    def floating_point_ops(self, inputs: dict[str, Tensor | Any]) -> int:
        """Those of all forwards of the step."""
        of_forward = super().floating_point_ops
        return sum(of_forward(dict(forward)) for forward in cast(Batch, inputs)["forwards"])

    def rehearse(self) -> None:
        """The forward and backward pass of the batch with the longest examples, whose result is thrown away.

        What does not fit into the memory of a GPU fails here, in seconds, and not an hour later.
        """
        assert self.model is not None
        self.model.train()
        inputs: dict[str, Any] = dict(self.batches.longest())
        batch = cast(Batch, self._prepare_inputs(inputs))
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            self.step_loss.backward(self.model, batch, self._precision)
        self.model.zero_grad()

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Measures and logs the preference gap (`health.preference_gap`) and each dimension's loss at its vertex."""
        assert self.model is not None
        metrics: dict[str, float] = {}
        with self.accelerator.autocast():
            if self.probes:
                metrics["preference_gap"] = preference_gap(self.model, self.probes)
            losses = vertex_losses(self.model, self.held_out, self._held_out_reference, self.config.beta)
        metrics |= {VERTEX_LOSS + self.names[dimension]: loss for dimension, loss in losses.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means of the loss and its parts since they were last logged.

        `Trainer`'s last line is left out: its speed and its mean loss are those of this process alone, and a resumed
        run would have others.

        Raises `FloatingPointError` when the loss or its gradient is not finite: no later step would mend that.
        """
        if "loss" in logs:
            logs |= self.means.take()
            self._check_finite(logs)
        if "train_runtime" not in logs:
            super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """A checkpoint of numbers that are not finite would replace the last good one, so there is none."""
        self._check_finite(self.means.so_far())
        super()._save_checkpoint(model, trial)

    def _check_finite(self, logs: dict[str, float]) -> None:
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise FloatingPointError(f"{name} is {logs[name]} at step {self.state.global_step}")


class OneLineProgress(ProgressCallback):
    """The progress bar with the last numbers at its end, instead of a new line for each of them."""

    SHOWN = ("loss", "dpo", "nll", "preference_gap")

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[str, str] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Takes what is worth showing from `logs`."""
        self._shown |= {name: f"{logs[name]:.3f}" for name in self.SHOWN if logs and name in logs}
        if isinstance(self.training_bar, tqdm):
            self.training_bar.set_postfix(self._shown, refresh=False)  # type: ignore[unreachable]  # set in a parent


def parameter_groups(
    model: nn.Module, singular_value_learning_rate: float, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """The parameters that are trained, for any optimizer of torch: E has a rate of its own, and only matrices decay."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    singular = [p for name, p in trained if ".lora_E." in name]
    rest = [p for name, p in trained if ".lora_E." not in name]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.dim() <= 1], "weight_decay": 0.0},
        {"params": singular, "weight_decay": 0.0, "lr": singular_value_learning_rate},
    ]
    return [group for group in groups if group["params"]]


def _tensorboard(folder: Path) -> TrainerCallback:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError("TensorBoard is not installed: pip install 'panacea-server[tensorboard]'") from None
    return TensorBoardCallback(SummaryWriter(str(folder)))  # type: ignore[no-untyped-call]  # theirs, both


def _arguments(config: TrainingConfig, *, measure_health: bool, use_cache: bool) -> TrainingArguments:
    health_steps = config.health_steps if measure_health else None
    # Older versions call it `gradient_checkpointing`, which newer ones warn of.
    checkpointing = "activation_checkpointing"
    if all(field.name != checkpointing for field in fields(TrainingArguments)):
        checkpointing = "gradient_checkpointing"
    options: dict[str, Any] = {checkpointing: config.gradient_checkpointing}
    arguments = TrainingArguments(
        output_dir=str(config.output_dir),
        max_steps=config.steps,
        # One item of `StepBatches` is a whole step, which `training_step` shares among forwards.
        per_device_train_batch_size=1,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_steps,
        max_grad_norm=config.max_grad_norm,
        bf16=config.bf16,
        use_cpu=config.device == "cpu",
        seed=config.seed,
        logging_steps=config.logging_steps,
        # A loss that is not a number has to be seen.
        logging_nan_inf_filter=False,
        eval_strategy="no" if health_steps is None else "steps",
        eval_steps=health_steps,
        save_strategy="no" if config.save_steps is None else "steps",
        save_steps=config.save_steps or 0,
        save_total_limit=1,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        # peft hides the names that `Trainer` would look for, and it would say so.
        label_names=["targets"],
        disable_tqdm=not config.progress,
        report_to="none",
        # `Trainer` writes this into the model's config, which would be saved with the model. No forward here reads it.
        use_cache=use_cache,
        **options,
    )
    # Several visible devices would make `Trainer` split batches over them (`DataParallel`); these batches cannot be.
    arguments._n_gpu = min(arguments.n_gpu, 1)  # pyright: ignore[reportPrivateUsage]  # `Trainer` does the same
    return arguments
