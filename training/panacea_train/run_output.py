"""Where a training run keeps its checkpoints and puts its adapter: a folder that is complete or does not exist."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel

from panacea.errors import ConfigError
from panacea_train.data import TrainingFile
from panacea_train.method import save_adapter
from panacea_train.run_settings import RunSettings

_OVERWRITE = "overwrite"
"""Beside the settings of an interrupted run: whether it may replace an adapter."""


@dataclass(frozen=True)
class RunFolders:
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
    folders = RunFolders(out)
    described = settings.describe(file)
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


def _check_same_run(folders: RunFolders, described: dict[str, Any]) -> bool:
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


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that was written to its end: the state is its last file."""
    complete = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def put_in_place(folders: RunFolders, model: PeftModel, settings: RunSettings, history: list[dict[str, float]]) -> None:
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
