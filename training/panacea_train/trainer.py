"""Trains a Panacea adapter, with SFT or DPO, on transformers' `Trainer`.

    from pathlib import Path

    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, set_seed
    from panacea_train.examples import Candidates, Demonstration, PreferencePair
    from panacea_train.method import PanaceaConfig, save_adapter, steered
    from panacea_train.trainer import PanaceaTrainer, TrainingConfig

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
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PretrainedConfig, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from panacea.errors import ConfigError
from panacea_train.batches import Batch, Sampling, Selection, StepBatches
from panacea_train.examples import Example, check_example
from panacea_train.health import Probe, preference_gap, preference_probes
from panacea_train.method import find_steering
from panacea_train.objectives import dpo_loss, preferred_weights, scalarised_targets, sft_loss
from panacea_train.scoring import reference_logprobs, sequence_logprobs, under


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. Rates and weights without another source are those of the trial that steered best."""

    output_dir: Path
    """Checkpoints are written here, if any are."""
    steps: int
    batch_size: int = 16
    """Examples in a step; a pair is one."""
    accumulation: int = 1
    """Forwards that a step is split into, for models whose step does not fit in memory; divides `batch_size`."""

    learning_rate: float = 1e-3
    """Of A and B, or of all parameters of a model without adapter. The default suits DPO; for SFT twice as much did."""
    singular_value_learning_rate: float = 2e-2
    """Of E. It must be far higher than that of A and B: with one rate for all (2e-4) nothing was steered. SFT: 3e-2."""
    warmup_steps: int = 50
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    """Of A and B, or of the matrices of a model without adapter; E, norms and biases never decay."""
    max_grad_norm: float = 1.0

    selection: Selection = "reward"
    """Which of an example's `Candidates` is learned: "reward" the one with the largest preference-weighted reward;
    "loss" the best of each dimension, each with its weight (linear scalarisation as in the paper)."""
    beta: float = 0.3
    """Of DPO: how far the model may move away from the base."""
    sft_weight: float = 0.1
    """Of the SFT term on a pair's preferred answer."""
    vertex_probability: float = 0.3
    dirichlet_alpha: float = 1.0

    seed: int = 0
    logging_steps: int = 20
    health_steps: int | None = 100
    """Measure the preference gap so often; None: never."""
    save_steps: int | None = None
    """Write a checkpoint so often and keep the last; None: never."""
    progress: bool = True


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
    ) -> None:
        """`model` is a causal language model with a Panacea adapter, or a bare one to be trained as a whole.

        `probes` measure the preference gap; None takes them from `examples` (held-out ones tell more). Pairs are scored
        by the bare base right here, once, with a progress bar.

        Raises `ConfigError` for a configuration that contradicts itself or no examples, `ValueError` that names an
        example which does not fit the model.
        """
        if config.batch_size % config.accumulation:
            raise ConfigError(f"{config.accumulation} forwards cannot share {config.batch_size} examples equally")
        self.config = config
        steering = find_steering(model)
        self.dimensions = 0 if steering is None else len(steering.space.dimensions)
        model_config: PretrainedConfig = model.config  # type: ignore[assignment]  # of any model of transformers
        limit: int | None = getattr(model_config, "max_position_embeddings", None)
        for index, example in enumerate(examples):
            try:
                check_example(example, self.dimensions, limit)
            except ValueError as error:
                raise ValueError(f"example {index}: {error}") from None
        if probes is None:
            probes = preference_probes(examples, self.dimensions)
        self.probes = probes
        super().__init__(
            model=model,
            args=_arguments(config, measure_health=bool(probes), use_cache=getattr(model_config, "use_cache", True)),
            # Only its presence is asked for: `evaluate` takes the probes.
            eval_dataset=cast(Any, list(probes) or None),
        )
        if self.args.world_size > 1:
            raise ConfigError("PanaceaTrainer runs in one process")
        # Only now, because `Trainer` has moved the model to its device.
        sampling = Sampling(
            batch_size=config.batch_size // config.accumulation,
            dimensions=self.dimensions,
            seed=config.seed,
            vertex_probability=config.vertex_probability,
            dirichlet_alpha=config.dirichlet_alpha,
            selection=config.selection,
        )
        reference = reference_logprobs(model, examples, progress=config.progress)
        self.batches = StepBatches(examples, sampling, config.steps * config.accumulation, reference)
        self.train_dataset = self.batches
        self._parts: dict[str, tuple[Tensor, int]] = {}
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        if config.progress:
            self.add_callback(OneLineProgress())

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
            trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
            singular = [p for name, p in trained if ".lora_E." in name]
            rest = [(name, p) for name, p in trained if ".lora_E." not in name]
            groups: list[dict[str, Any]] = [
                {"params": [p for _, p in rest if p.dim() > 1], "weight_decay": config.weight_decay},
                {"params": [p for _, p in rest if p.dim() <= 1]},
                {"params": singular, "lr": config.singular_value_learning_rate},
            ]
            self.optimizer = torch.optim.AdamW(
                [group for group in groups if group["params"]],
                lr=config.learning_rate,
                betas=config.betas,
                weight_decay=0.0,
            )
        return self.optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Mean over the batch's examples: DPO and a little SFT for pairs, SFT for the others; a scalar.

        pairs / examples * (DPO + sft_weight * SFT(preferred answers)) + others / examples * SFT
        """
        batch = cast(Batch, inputs)
        with under(model, batch["preference"]):
            logprobs = sequence_logprobs(model, batch)
        pairs = len(batch["pair_probabilities"])
        lengths = batch["lengths"]
        share = batch["pair_share"]
        loss = logprobs.new_zeros(())
        if pairs:
            policy = logprobs[: 2 * pairs].view(2, pairs).t()
            targets = scalarised_targets(batch["pair_probabilities"], batch["preference"][:pairs])
            dpo = dpo_loss(policy, batch["pair_reference"], targets, self.config.beta)
            preferred = preferred_weights(targets).t().reshape(-1)
            sft = sft_loss(logprobs[: 2 * pairs], lengths[: 2 * pairs], preferred)
            loss = loss + share * (dpo + self.config.sft_weight * sft)
            self._note(dpo=dpo, preferred_nll=sft)
        if len(logprobs) > 2 * pairs:
            sft = sft_loss(logprobs[2 * pairs :], lengths[2 * pairs :], batch["sft_weights"])
            loss = loss + (1 - share) * sft
            self._note(nll=sft)
        return loss

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Measures and logs the preference gap (see `health.preference_gap`), in nats per answer."""
        assert self.model is not None
        metrics = {"preference_gap": preference_gap(self.model, self.probes)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means of the loss's parts since they were last logged.

        Raises `FloatingPointError` when the loss or its gradient is not finite: no later step would mend that.
        """
        if "loss" in logs:
            for name in ("loss", "grad_norm"):
                if not math.isfinite(logs.get(name, 0.0)):
                    raise FloatingPointError(f"{name} is {logs[name]} at step {self.state.global_step}")
            logs |= {name: (total / count).item() for name, (total, count) in self._parts.items()}
            self._parts = {}
        super().log(logs, start_time)

    def _note(self, **parts: Tensor) -> None:
        for name, value in parts.items():
            total, count = self._parts.get(name, (torch.zeros_like(value), 0))
            self._parts[name] = (total + value.detach(), count + 1)


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


def _arguments(config: TrainingConfig, *, measure_health: bool, use_cache: bool) -> TrainingArguments:
    health_steps = config.health_steps if measure_health else None
    arguments = TrainingArguments(
        output_dir=str(config.output_dir),
        max_steps=config.steps,
        # One item of `StepBatches` is a whole batch.
        per_device_train_batch_size=1,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_steps,
        max_grad_norm=config.max_grad_norm,
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
    )
    # Several visible devices would make `Trainer` split batches over them (`DataParallel`); these batches cannot be.
    arguments._n_gpu = min(arguments.n_gpu, 1)  # pyright: ignore[reportPrivateUsage]  # `Trainer` does the same
    return arguments
