"""One training run: from a training file and a base model to an adapter's folder, which is whole or not there."""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel, get_peft_model
from torch import nn
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, TrainerCallback, set_seed

from panacea.errors import ConfigError, first_line
from panacea.model.hub import local_folder
from panacea_train.data import TrainingFile
from panacea_train.data.encoding import ConversationEncoder
from panacea_train.data.example_building import Objective, to_examples
from panacea_train.method import PanaceaConfig, save_adapter
from panacea_train.method.panacea_config import ATTENTION_AND_MLP
from panacea_train.trainer import HELD_OUT, VERTEX_LOSS, PanaceaTrainer, TrainingConfig
from panacea_train.training_examples import Example, longest

Aggregation = Literal["linear", "tchebycheff", "reward"]
DType = Literal["auto", "float32", "bfloat16"]

RATES: dict[Objective, tuple[float, float]] = {"sft": (2e-3, 3e-2), "dpo": (1e-3, 2e-2)}
"""Learning rates of A and B, and of the singular values, that steered best in trials with models of 1 M parameters."""

ROUTERS = ("gate", "router")
"""Linear layers that choose experts. A preference that changed the choice would change which weights are adapted."""


@dataclass(frozen=True)
class RunSettings:
    """What a run shall do. Defaults are the paper's (arXiv 2402.02030) where it has any."""

    model: str
    """The base: a folder or a hub id."""
    objective: Objective = "dpo"
    aggregation: Aggregation = "linear"
    """"reward" (SFT alone): learn the answer with the largest preference-weighted score."""
    ideal: tuple[float, ...] | None = None
    label_temperature: float = 0.0
    """For DPO on scores: see `data.to_examples`."""

    shared_columns: int = 8
    columns_per_dimension: int = 1
    scaling: float | None = None
    """None: 512 / `shared_columns`."""
    targets: tuple[str, ...] | None = None
    """Last parts of module names; None: every linear layer of attention and MLP."""
    initializer_std: float = 0.02
    one_scale_per_matrix: bool = True
    default_preference: tuple[float, ...] = ()

    epochs: float = 1.0
    steps: int | None = None
    """Instead of `epochs`."""
    batch_size: int = 16
    accumulation: int = 1
    learning_rate: float | None = None
    singular_value_learning_rate: float | None = None
    """None: as in `RATES`."""
    warmup_steps: int = 50
    weight_decay: float = 0.0
    beta: float = 0.3
    sft_weight: float = 0.1
    vertex_probability: float = 0.3
    dirichlet_alpha: float = 1.0
    held_out: int | None = None
    """Lines that are kept for the measurements; None: a twentieth, at most 64."""
    max_tokens: int = 2048
    """Examples that are longer are left out."""
    gradient_checkpointing: bool = False
    dtype: DType = "auto"
    device: Literal["auto", "cpu"] = "auto"
    seed: int = 0
    health_steps: int = 50
    save_steps: int = 200

    def check(self, dimensions: Sequence[str]) -> None:
        """Raises `ConfigError` for settings that contradict each other or the dimensions."""
        if not dimensions:
            raise ConfigError("no line names a dimension, so there is nothing to steer; --dimension names one")
        if self.aggregation == "reward" and self.objective == "dpo":
            raise ConfigError("--aggregation reward chooses an answer to imitate: it needs --objective sft")
        if self.ideal is not None and self.aggregation != "tchebycheff":
            raise ConfigError("--ideal is Tchebycheff's ideal point: it needs --aggregation tchebycheff")
        if self.label_temperature and self.objective == "sft":
            raise ConfigError("--label-temperature softens the labels of pairs: it needs --objective dpo")
        if self.batch_size % self.accumulation:
            raise ConfigError(f"--batch-size {self.batch_size} is no multiple of --accumulation {self.accumulation}")
        if self.shared_columns == 0 and self.scaling is None:
            raise ConfigError("--shared-columns 0 needs --scaling: the paper's is 512 / their number")
        for name, numbers in (("ideal", self.ideal), ("default", self.default_preference or None)):
            if numbers is not None and len(numbers) != len(dimensions):
                listed = ", ".join(dimensions)
                raise ConfigError(f"--{name} has {len(numbers)} numbers for {len(dimensions)} dimensions ({listed})")


@dataclass(frozen=True)
class RunResult:
    """What came of it."""

    steps: int
    examples: int
    too_long: int
    """Examples that were left out."""
    preference_gap: float | None
    """In nats per answer; None where the data has nothing to measure it on."""
    vertex_losses: dict[str, float]


@dataclass(frozen=True)
class _Folders:
    """Where a run keeps what. All lie beside each other, so that a finished folder is moved by one rename."""

    out: Path

    @property
    def work(self) -> Path:
        """Checkpoints and settings, until the run is finished."""
        return self.out.with_name(f"{self.out.name}.training")

    @property
    def settings(self) -> Path:
        return self.work / "settings.json"

    @property
    def new(self) -> Path:
        """The adapter until it is complete."""
        return self.out.with_name(f".{self.out.name}.new")

    @property
    def old(self) -> Path:
        """What `new` replaces."""
        return self.out.with_name(f".{self.out.name}.old")


def prepare_output(settings: RunSettings, file: TrainingFile, out: Path, *, overwrite: bool, resume: bool) -> None:
    """Makes sure that a run may write to `out`, before anything is loaded.

    Raises `ConfigError` when `out` exists and `overwrite` is not asked for; when there is an interrupted run and nobody
    says what to do about it; or when there is none to resume, or it had other settings.
    """
    if overwrite and resume:
        raise ConfigError("--overwrite begins anew and --resume goes on: choose one")
    if not out.name:
        raise ConfigError(f"{out} is no name for a new folder")
    folders = _Folders(out)
    described = _describe(settings, file)
    if resume:
        # It may have begun with --overwrite.
        overwrite = _check_same_run(folders, described)
    if out.exists():
        if not overwrite:
            raise ConfigError(f"{out} exists already; --overwrite replaces it, once the new adapter is complete")
        if not out.is_dir() or (any(out.iterdir()) and not (out / "adapter_config.json").is_file()):
            raise ConfigError(f"{out} is no adapter, so it is not replaced")
    if resume:
        return
    if folders.work.exists():
        if not overwrite:
            raise ConfigError(
                f"{folders.work} holds an interrupted run: --resume goes on with it, --overwrite begins anew"
            )
        shutil.rmtree(folders.work)
    try:
        folders.work.mkdir(parents=True)
        folders.settings.write_text(json.dumps(described | {_OVERWRITE: overwrite}, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise ConfigError(f"{folders.work} cannot be written: {(error.strerror or str(error)).lower()}") from None


def train_adapter(
    settings: RunSettings,
    file: TrainingFile,
    out: Path,
    *,
    tensorboard: Path | None = None,
    progress: bool = True,
    callbacks: Sequence[TrainerCallback] = (),
    report: Callable[[str], None] = lambda text: None,
) -> RunResult:
    """Trains on `file` after `prepare_output` and puts the adapter into `out`, together with how it was made.

    A run that finds checkpoints of its own goes on with the last of them, to the same losses. `report` gets lines worth
    reading; `callbacks` are transformers'.

    Raises `ConfigError` for a model that cannot be loaded, adapted, or trained in this GPU's memory, and for data that
    does not fit it.
    """
    folders = _Folders(out)
    model, encoder = _load(settings)
    targets = settings.targets or linear_targets(model)
    report(f"adapting {', '.join(targets)}")
    examples, held_out, too_long = _examples(settings, file, encoder, _limit(settings, model), progress)
    if too_long:
        report(f"examples of more than {_limit(settings, model):,} tokens, left out: {too_long:,}")
    if not examples:
        raise ConfigError("no example is left to train on")
    set_seed(settings.seed)
    adapted = _adapt(model, settings, file.dimensions, targets)
    config = _training_config(settings, len(examples), folders.work / "checkpoints", tensorboard, progress)
    report(f"{len(examples):,} examples, {config.steps:,} steps of {min(config.batch_size, len(examples))}")
    with _memory_explained(settings):
        trainer = PanaceaTrainer(adapted, examples, config, held_out=held_out or None)
        for callback in callbacks:
            trainer.add_callback(callback)
        if trainer.args.device.type == "cuda":
            trainer.rehearse()
        checkpoint = _last_checkpoint(config.output_dir)
        if checkpoint is not None:
            report(f"going on after step {checkpoint.name.rpartition('-')[2]}")
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        metrics = trainer.evaluate()
    _finish(folders, adapted, settings, trainer.state.log_history)
    return RunResult(
        steps=trainer.state.global_step,
        examples=len(examples),
        too_long=too_long,
        preference_gap=metrics.get("preference_gap"),
        vertex_losses={
            name.removeprefix(VERTEX_LOSS): loss for name, loss in metrics.items() if name.startswith(VERTEX_LOSS)
        },
    )


def linear_targets(model: PreTrainedModel) -> tuple[str, ...]:
    """The last parts of the names of all linear layers, without the output head and routers.

    The paper's seven where a model has no others. Raises `ConfigError` for a model without linear layers.
    """
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers'
    found = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }.difference(ROUTERS)
    if not found:
        raise ConfigError(f"{type(model).__name__} has no linear layers that could be adapted")
    paper = tuple(name for name in ATTENTION_AND_MLP if name in found)
    return (*paper, *sorted(found.difference(paper)))


def _describe(settings: RunSettings, file: TrainingFile) -> dict[str, Any]:
    """All that decides what a run learns."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return content | {"dimensions": list(file.dimensions), "data": sha256(file.path.read_bytes()).hexdigest()}


_OVERWRITE = "overwrite"
"""Beside the settings of an interrupted run: whether it may replace an adapter."""


def _check_same_run(folders: _Folders, described: dict[str, Any]) -> bool:
    """Whether the interrupted run, which was described like this, may replace an adapter."""
    try:
        before: dict[str, Any] = json.loads(folders.settings.read_text("utf-8"))
    except (OSError, ValueError):
        raise ConfigError(f"there is no interrupted run in {folders.work} to resume") from None
    for name, value in described.items():
        if before.get(name) != value:
            if name == "data":
                raise ConfigError("--resume: the training file is not the one that the interrupted run began with")
            raise ConfigError(f"--resume: the interrupted run had {name} {before.get(name)}, and not {value}")
    return before.get(_OVERWRITE) is True


def _load(settings: RunSettings) -> tuple[PreTrainedModel, ConversationEncoder]:
    folder = local_folder(settings.model)
    dtype = torch.bfloat16 if _is_bf16(settings) else torch.float32
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    # Whatever is wrong with a folder, transformers raises almost any exception for it.
    except Exception as error:
        raise ConfigError(f"{settings.model} cannot be loaded: {first_line(error)}") from error
    stop: int | list[int] | None = getattr(model.generation_config, "eos_token_id", None)
    stop_ids: Sequence[int] = () if stop is None else [stop] if isinstance(stop, int) else stop
    return model, ConversationEncoder(tokenizer, stop_ids)


def _is_bf16(settings: RunSettings) -> bool:
    if settings.dtype != "auto":
        return settings.dtype == "bfloat16"
    return settings.device == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def _limit(settings: RunSettings, model: PreTrainedModel) -> int:
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(settings.max_tokens, positions) if isinstance(positions, int) else settings.max_tokens


def _examples(
    settings: RunSettings, file: TrainingFile, encoder: ConversationEncoder, limit: int, progress: bool
) -> tuple[list[Example], list[Example], int]:
    """Examples to train on, held-out ones, and how many of both were too long."""
    count = settings.held_out if settings.held_out is not None else min(HELD_OUT, len(file.records) // 20)
    if count >= len(file.records):
        raise ConfigError(f"{count} lines held out leave none of {len(file.records)} to train on")
    # Whole lines, spread over the file: two examples of one prompt are not strangers.
    held = {round((index + 0.5) * len(file.records) / count) for index in range(count)} if count else set[int]()
    train: list[Example] = []
    held_out: list[Example] = []
    too_long = 0
    lines = tqdm(file.records, desc="tokens", unit=" lines", disable=not progress, dynamic_ncols=True)
    for index, (number, record) in enumerate(lines):
        try:
            made = to_examples(record, file.dimensions, encoder, settings.objective, settings.label_temperature)
        except ValueError as error:
            raise ConfigError(f"{file.path}, line {number}: {error}") from None
        short = [example for example in made if longest(example) <= limit]
        too_long += len(made) - len(short)
        (held_out if index in held else train).extend(short)
    return train, held_out, too_long


def _adapt(
    model: PreTrainedModel, settings: RunSettings, dimensions: tuple[str, ...], targets: tuple[str, ...]
) -> PeftModel:
    columns = [-1] * settings.shared_columns
    columns += [index for index in range(len(dimensions)) for _ in range(settings.columns_per_dimension)]
    config = PanaceaConfig(
        task_type="CAUSAL_LM",
        preference_columns=columns,
        scaling=settings.scaling,
        target_modules=list(targets),
        preference_dimensions=list(dimensions),
        default_preference=settings.default_preference,
        initializer_std=settings.initializer_std,
        one_scale_per_matrix=settings.one_scale_per_matrix,
    )
    try:
        with warnings.catch_warnings():
            # peft 0.21 asks for it under a name that transformers 5.23 calls deprecated.
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing` is deprecated", FutureWarning)
            adapted = get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(f"{settings.model} cannot be adapted: {first_line(error)}") from None
    assert isinstance(adapted, PeftModel)
    return adapted


def _training_config(
    settings: RunSettings, examples: int, checkpoints: Path, tensorboard: Path | None, progress: bool
) -> TrainingConfig:
    rate, singular_value_rate = RATES[settings.objective]
    steps = settings.steps or max(1, round(settings.epochs * examples / min(settings.batch_size, examples)))
    return TrainingConfig(
        output_dir=checkpoints,
        steps=steps,
        batch_size=settings.batch_size,
        accumulation=settings.accumulation,
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=_is_bf16(settings),
        device=settings.device,
        learning_rate=settings.learning_rate or rate,
        singular_value_learning_rate=settings.singular_value_learning_rate or singular_value_rate,
        warmup_steps=min(settings.warmup_steps, steps // 10),
        weight_decay=settings.weight_decay,
        selection="reward" if settings.aggregation == "reward" else "loss",
        aggregation="tchebycheff" if settings.aggregation == "tchebycheff" else "linear",
        ideal=settings.ideal,
        beta=settings.beta,
        sft_weight=settings.sft_weight,
        vertex_probability=settings.vertex_probability,
        dirichlet_alpha=settings.dirichlet_alpha,
        seed=settings.seed,
        logging_steps=min(20, max(1, steps // 20)),
        health_steps=settings.health_steps,
        save_steps=settings.save_steps,
        tensorboard=tensorboard,
        progress=progress,
    )


@contextmanager
def _memory_explained(settings: RunSettings) -> Generator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        ways = ["a smaller --max-tokens"]
        if not settings.gradient_checkpointing:
            ways.insert(0, "--gradient-checkpointing")
        if settings.accumulation < settings.batch_size:
            ways.insert(0, f"--accumulation {2 * settings.accumulation}")
        raise ConfigError(
            f"the GPU's memory is too small for this: try {', '.join(ways)} ({first_line(error)})"
        ) from None


def _last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that was written to its end: the state is its last file."""
    complete = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _finish(folders: _Folders, model: PeftModel, settings: RunSettings, history: list[dict[str, float]]) -> None:
    """Writes the adapter beside its place, and then puts it there."""
    shutil.rmtree(folders.new, ignore_errors=True)
    base = Path(settings.model).expanduser()
    if base.is_dir():
        save_adapter(model, folders.new, base=base)
    else:
        model.peft_config[model.active_adapters[0]].base_model_name_or_path = settings.model
        save_adapter(model, folders.new)
    made: dict[str, Any] = json.loads(folders.settings.read_text("utf-8")) | {"log": history}
    made.pop(_OVERWRITE, None)
    (folders.new / "training.json").write_text(json.dumps(made, indent=1) + "\n", "utf-8")
    shutil.rmtree(folders.old, ignore_errors=True)
    if folders.out.exists():
        os.replace(folders.out, folders.old)
    os.replace(folders.new, folders.out)
    shutil.rmtree(folders.old, ignore_errors=True)
    shutil.rmtree(folders.work, ignore_errors=True)
