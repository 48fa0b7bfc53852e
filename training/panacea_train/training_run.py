"""One training run: from a training file and a base model to the folder of an adapter."""

import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model
from safetensors import SafetensorError
from torch import nn
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, TrainerCallback, set_seed

from panacea.errors import ConfigError, OutputError, first_line
from panacea.model.end_tokens import end_token_ids
from panacea.model.hub import local_folder
from panacea_train.data import TrainingFile
from panacea_train.data.encoding import ConversationEncoder
from panacea_train.data.example_building import to_examples
from panacea_train.method import PanaceaConfig
from panacea_train.method.panacea_config import ATTENTION_AND_MLP
from panacea_train.run_output import RunFolders, last_checkpoint, put_in_place
from panacea_train.run_settings import RunSettings
from panacea_train.trainer import HELD_OUT, VERTEX_LOSS, PanaceaTrainer
from panacea_train.training_config import TrainingConfig
from panacea_train.training_examples import Example, longest
from panacea_train.training_options import RATES, LossOptions, MemoryOptions, StepOptions

ROUTERS = ("gate", "router")
"""Linear layers that choose experts. A preference that changed the choice would change which weights are adapted."""

_CPU_MEMORY = "DefaultCPUAllocator"
_UNWRITTEN = ("PytorchStreamWriter", "inline_container", "unexpected pos")
"""torch has no type for these errors, only words."""


@dataclass(frozen=True)
class RunResult:
    """What a run has done, and what it measured at its end."""

    steps: int
    examples: int
    too_long: int
    """Examples that were left out."""
    preference_gap: float | None
    """In nats per answer; None where the data has nothing to measure it on."""
    vertex_losses: dict[str, float]


def train_adapter(
    settings: RunSettings,
    file: TrainingFile,
    folders: RunFolders,
    *,
    tensorboard: Path | None = None,
    progress: bool = True,
    callbacks: Sequence[TrainerCallback] = (),
    report: Callable[[str], None] = lambda text: None,
) -> RunResult:
    """Trains on `file` inside `prepared_output`; puts the adapter into its place, together with how it was made.

    A run that finds checkpoints of its own goes on with the last of them, to the same losses. `report` gets lines worth
    reading; `callbacks` are transformers'.

    Raises `ConfigError` for a model that cannot be loaded, adapted, or trained in this GPU's memory, and for data that
    does not fit it; `OutputError` when a file cannot be written.
    """
    model, encoder = _load(settings)
    targets = _checked_targets(settings, model)
    report(f"adapting {', '.join(targets)}")
    examples, held_out, too_long = _examples(settings, file, encoder, _limit(settings, model), progress)
    if too_long:
        report(f"examples of more than {_limit(settings, model):,} tokens, left out: {too_long:,}")
    if not examples:
        raise ConfigError("no example is left to train on")
    set_seed(settings.seed)
    adapted = _adapt(model, settings, file.dimensions, targets)
    config = _training_config(settings, len(examples), folders.checkpoints, tensorboard, progress)
    report(f"{len(examples):,} examples, {config.steps:,} steps of {min(config.batch_size, len(examples))}")
    with _faults_explained(settings):
        trainer = PanaceaTrainer(adapted, examples, config, held_out=held_out or None)
        for callback in callbacks:
            trainer.add_callback(callback)
        if trainer.args.device.type == "cuda":
            trainer.rehearse()
        checkpoint = last_checkpoint(config.output_dir)
        if checkpoint is not None:
            report(f"going on after step {checkpoint.name.rpartition('-')[2]}")
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        metrics = trainer.evaluate()
    put_in_place(folders, adapted, settings, trainer.state.log_history)
    return RunResult(
        steps=trainer.state.global_step,
        examples=len(examples),
        too_long=too_long,
        preference_gap=metrics.get("preference_gap"),
        vertex_losses={
            name.removeprefix(VERTEX_LOSS): loss for name, loss in metrics.items() if name.startswith(VERTEX_LOSS)
        },
    )


def _checked_targets(settings: RunSettings, model: PreTrainedModel) -> tuple[str, ...]:
    found = linear_targets(model)
    known = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    for target in settings.targets or ():
        if target not in known:
            raise ConfigError(f"--target {target[:64]}: the model has no such module; it has {', '.join(found)}")
    return settings.targets or found


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


def _load(settings: RunSettings) -> tuple[PreTrainedModel, ConversationEncoder]:
    folder = local_folder(settings.model)
    dtype = torch.bfloat16 if _is_bf16(settings) else torch.float32
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    # Whatever is wrong with a folder, transformers raises almost any exception for it.
    except Exception as error:
        raise ConfigError(f"{settings.model} cannot be loaded: {first_line(error)}") from error
    text_config = model.config.get_text_config(decoder=True)
    ends = end_token_ids(folder, text_config.eos_token_id, text_config.vocab_size)
    return model, ConversationEncoder(tokenizer, ends)


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
        initializer_std=settings.init_std,
        one_scale_per_matrix=not settings.scale_per_column,
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
    shared = {
        field.name: getattr(settings, field.name)
        for options in (LossOptions, StepOptions, MemoryOptions)
        for field in fields(options)
    }
    shared["warmup_steps"] = min(settings.warmup_steps, steps // 10)
    return TrainingConfig(
        checkpoints,
        steps,
        bf16=_is_bf16(settings),
        learning_rate=settings.learning_rate or rate,
        singular_value_learning_rate=settings.singular_value_learning_rate or singular_value_rate,
        selection="reward" if settings.aggregation == "reward" else "loss",
        aggregation="tchebycheff" if settings.aggregation == "tchebycheff" else "linear",
        ideal=settings.ideal,
        logging_steps=min(20, max(1, steps // 20)),
        health_steps=settings.health_steps,
        save_steps=settings.save_steps,
        tensorboard=tensorboard,
        progress=progress,
        **shared,
    )


@contextmanager
def _faults_explained(settings: RunSettings) -> Generator[None]:
    try:
        yield
    except FloatingPointError as error:
        raise ConfigError(f"{error}: divide both learning rates by 3 to 10, and look at the data") from None
    except SafetensorError as error:
        raise OutputError(f"a checkpoint cannot be written: {first_line(error)}") from None
    except RuntimeError as error:
        told = first_line(error)
        if isinstance(error, torch.OutOfMemoryError) or _CPU_MEMORY in told:
            ways = ["a smaller --max-tokens"]
            if not settings.gradient_checkpointing:
                ways.insert(0, "--gradient-checkpointing")
            if settings.accumulation < settings.batch_size:
                ways.insert(0, f"--accumulation {2 * settings.accumulation}")
            whose = "the machine's" if _CPU_MEMORY in told else "the GPU's"
            raise ConfigError(f"{whose} memory is too small for this: try {', '.join(ways)} ({told})") from None
        if any(sign in str(error) for sign in _UNWRITTEN):
            raise OutputError(f"a checkpoint cannot be written: is the disk full? ({told})") from None
        raise
