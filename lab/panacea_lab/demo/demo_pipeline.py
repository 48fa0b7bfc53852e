"""The demo model from nothing: one function that runs every stage."""

import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import torch
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from panacea.errors import ConfigError
from panacea.evaluation import Evaluation
from panacea_lab.demo.adapter_training import train_adapter
from panacea_lab.demo.answerer import Answerer
from panacea_lab.demo.base_training import save_base, train_base
from panacea_lab.demo.demo_chat import train_tokenizer
from panacea_lab.demo.demo_pairs import ComparedAnswers, make_pairs, sample_candidates
from panacea_lab.demo.demo_settings import DemoSettings
from panacea_lab.demo.examination import examine
from panacea_lab.demo.job_stages import STATE_FILE, JobStage, StageLog, StageProgress, run_stages
from panacea_lab.world.held_out import load_held_out
from panacea_lab.world.world_texts import World, load_world
from panacea_train.evaluation.evaluation_file import EVALUATION_FILE, load_evaluation, save_evaluation
from panacea_train.output_folder import locked


def train_demo(
    out: Path, seed: int = 0, settings: DemoSettings | None = None, show_progress: bool = True, threads: int = 1
) -> Evaluation:
    """Trains the demo model from nothing and examines it; returns the evaluation.

    Writes `out/base` and `out/adapter` (with evaluation.json), ready for `panacea serve --adapter out/adapter`, and
    `out/work` with what lies between. Run again after an interruption, it goes on with the stage that was interrupted.
    The same seed, settings and machine give the same files; other machines round differently and give others.

    `threads`: for torch; one is fastest for a model this small unless the machine is idle.

    Raises `ConfigError` when `out` cannot be written, holds a run with another seed or other settings, or a base or an
    adapter that no such run has made; `OutputError` while another process trains into it.
    """
    settings = settings or DemoSettings()
    demo = _Demo(out, seed, settings)
    identity = hashlib.sha256(msgspec.json.encode([seed, settings])).hexdigest()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot use {out} for training: {error}") from None
    with locked(out.absolute()), _quiet_transformers(), _torch_threads(threads):
        if not (out / "work" / STATE_FILE).exists():
            for folder in (demo.base, demo.adapter):
                if folder.exists():
                    raise ConfigError(f"{folder} is not from an interrupted run: choose another --out")
        run_stages(demo.stages, StageLog(out / "work", identity), show_progress)
    return load_evaluation(demo.adapter / EVALUATION_FILE)


@contextmanager
def _torch_threads(threads: int) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet_transformers() -> Generator[None]:
    """Keeps transformers' own bars out of the job's one bar."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


class _Demo:
    """The stages, each reading what the earlier ones wrote."""

    def __init__(self, out: Path, seed: int, settings: DemoSettings) -> None:
        self.base = out / "base"
        self.adapter = out / "adapter"
        self._candidates = out / "work" / "candidates.json"
        self._seed = seed
        self._settings = settings
        self._world = _world_of(settings)

    @property
    def stages(self) -> list[JobStage]:
        # Shares as measured with the full settings on one core.
        return [
            JobStage("base", 0.75, self._train_base),
            JobStage("candidates", 0.07, self._sample_candidates),
            JobStage("adapter", 0.11, self._train_adapter),
            JobStage("evaluation", 0.07, self._examine),
        ]

    def _train_base(self, report: StageProgress) -> None:
        settings = self._settings.base
        tokenizer = train_tokenizer(self._world, self._seed, settings.vocab_size, settings.context)
        save_base(train_base(self._world, tokenizer, settings, self._seed, report), tokenizer, self.base)

    def _sample_candidates(self, report: StageProgress) -> None:
        comparisons = sample_candidates(self._world, self._answerer(), self._settings.pairs, self._seed, report)
        self._candidates.write_bytes(msgspec.json.encode(comparisons))

    def _train_adapter(self, report: StageProgress) -> None:
        comparisons = msgspec.json.decode(self._candidates.read_bytes(), type=list[ComparedAnswers])
        pairs = make_pairs(comparisons, self._tokenizer(), self._settings.pairs, self._seed)
        train_adapter(self.base, pairs, self._settings.adapter, self.adapter, self._seed, report)

    def _examine(self, report: StageProgress) -> None:
        held_out = load_held_out(self._world)
        evaluation = examine(
            self._world, held_out, self._answerer(self.adapter), self._settings.exam, self._seed, report
        )
        save_evaluation(evaluation, self.adapter / EVALUATION_FILE)

    def _tokenizer(self) -> PreTrainedTokenizerFast:
        tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(self.base)
        return tokenizer

    def _answerer(self, adapter: Path | None = None) -> Answerer:
        return Answerer(self._tokenizer(), self.base, adapter)


def _world_of(settings: DemoSettings) -> World:
    world = load_world()
    if settings.tasks is None and settings.dangers is None:
        return world
    tasks = len(world.tasks) if settings.tasks is None else settings.tasks
    return world.restricted(tasks, len(world.dangers) if settings.dangers is None else settings.dangers)
