"""Where a training run keeps its checkpoints and puts its adapter: a folder that is complete or does not exist."""

import json
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel

from panacea.errors import ConfigError, OutputError, PanaceaError
from panacea_train.data import TrainingFile
from panacea_train.method import save_adapter
from panacea_train.output_folder import MODEL, Contents, OutputFolder, output_folder
from panacea_train.run_settings import RunSettings

_OVERWRITE = "overwrite"
"""Beside the settings of an interrupted run: whether it may replace an adapter."""
_SETTINGS_FILE = "settings.json"
_CHECKPOINTS = "checkpoints"
_STATE_FILE = "trainer_state.json"
_MADE_FILE = "training.json"

ADAPTER = Contents("an adapter", ("adapter_config.json",), MODEL.names)


@dataclass(frozen=True)
class RunFolders:
    """Where a run keeps what. All lie beside each other, so that a finished folder is moved by one rename."""

    output: OutputFolder
    described: dict[str, Any]
    """All that decides what the run learns, see `RunSettings.describe`."""

    @property
    def work(self) -> Path:
        """Checkpoints and settings, until the run is finished."""
        return work_folder(self.output.out)

    @property
    def settings(self) -> Path:
        return self.work / _SETTINGS_FILE

    @property
    def checkpoints(self) -> Path:
        return self.work / _CHECKPOINTS


def work_folder(out: Path) -> Path:
    """Where a run that makes `out` keeps its checkpoints."""
    return out.with_name(f"{out.name}.training")


@contextmanager
def prepared_output(
    settings: RunSettings,
    file: TrainingFile,
    out: Path,
    *,
    overwrite: bool,
    resume: bool,
    say: Callable[[str], None],
) -> Generator[RunFolders]:
    """The right to train into `out`, checked before anything is loaded and held until the block ends.

    `say` gets a line for each leftover of a killed run.

    Raises `ConfigError` when `out` exists and `overwrite` is not asked for; when there is an interrupted run and nobody
    says what to do about it; or when there is none to resume, or it had other settings. Raises `OutputError` while
    another process trains into `out`.
    """
    if overwrite and resume:
        raise ConfigError("--overwrite begins anew and --resume goes on: choose one")
    if not out.name:
        raise ConfigError(f"{out} is no name for a new folder")
    described = settings.describe(file)
    if resume:
        # It may have begun with --overwrite, or been killed between the last two things it does: to put the adapter
        # into its place, and to delete its checkpoints.
        overwrite = _check_same_run(out, described) or _is_result_of(out, described)
    with output_folder(out, overwrite=overwrite, replaces=ADAPTER, say=say) as output:
        folders = RunFolders(output, described)
        if not resume:
            _begin(folders, overwrite=overwrite)
        try:
            yield folders
        except (PanaceaError, OSError):
            # A run that failed before its first checkpoint has nothing to resume: its mended command should simply run.
            if last_checkpoint(folders.checkpoints) is None:
                shutil.rmtree(folders.work, ignore_errors=True)
            raise


def _begin(folders: RunFolders, *, overwrite: bool) -> None:
    """Makes the folder of a new run, complete with its settings or not at all."""
    work = folders.work
    if work.is_symlink() or (work.exists() and not _is_work(work)):
        raise ConfigError(f"{work} is not the folder of an interrupted run: move it away, or choose another --out")
    if work.exists() and any(work.iterdir()):
        if not overwrite:
            raise ConfigError(f"{work} holds an interrupted run: --resume goes on with it, --overwrite begins anew")
        # The settings go first: without them a run that is killed here leaves nothing that could be resumed.
        folders.settings.unlink(missing_ok=True)
        shutil.rmtree(work)
    new = folders.output.temporary()
    described = folders.described | {_OVERWRITE: overwrite}
    (new / _SETTINGS_FILE).write_text(json.dumps(described, indent=1) + "\n", "utf-8")
    new.rename(work)


def _is_work(folder: Path) -> bool:
    return folder.is_dir() and all(path.name in (_SETTINGS_FILE, _CHECKPOINTS) for path in folder.iterdir())


def _check_same_run(out: Path, described: dict[str, Any]) -> bool:
    """Whether the interrupted run, which was described like this, may replace an adapter."""
    work = work_folder(out)
    before = _read_object(work / _SETTINGS_FILE)
    if before is None:
        raise ConfigError(f"there is no interrupted run in {work} to resume")
    for name, value in described.items():
        if before.get(name) != value:
            if name == "data":
                raise ConfigError("--resume: the training file is not the one that the interrupted run began with")
            raise ConfigError(f"--resume: the interrupted run had {name} {before.get(name)}, and not {value}")
    return before.get(_OVERWRITE) is True


def _is_result_of(out: Path, described: dict[str, Any]) -> bool:
    """Whether a run that was described like this has put its adapter into `out`."""
    made = _read_object(out / _MADE_FILE)
    return made is not None and all(made.get(name) == value for name, value in described.items())


def _read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is none."""
    try:
        content: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that was written to its end: the state is its last file. Others are deleted."""
    found = {
        path: state.get("global_step")
        for path in folder.glob("checkpoint-*")
        if (state := _read_object(path / _STATE_FILE)) is not None
    }
    last = max(found, key=lambda path: found[path] or 0, default=None)
    for path in folder.glob("checkpoint-*"):
        if path != last:
            shutil.rmtree(path)
    return last


def put_in_place(folders: RunFolders, model: PeftModel, settings: RunSettings, history: list[dict[str, float]]) -> None:
    """Writes the adapter beside its place, and then puts it there.

    Raises `OutputError` or `ConfigError` if the place is taken by now. The run's checkpoints are then kept.
    """
    new = folders.output.temporary()
    try:
        base = Path(settings.model).expanduser()
        if base.is_dir():
            save_adapter(model, new, base=base)
        else:
            model.peft_config[model.active_adapters[0]].base_model_name_or_path = settings.model
            save_adapter(model, new)
        # A resumed run has read its history from a file with sorted keys.
        made = folders.described | {"log": [dict(sorted(entry.items())) for entry in history]}
        (new / _MADE_FILE).write_text(json.dumps(made, indent=1) + "\n", "utf-8")
        try:
            folders.output.put(new)
        except (ConfigError, OutputError) as error:
            raise OutputError(f"{error}. {folders.work} keeps the run: --resume finishes it") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
    folders.settings.unlink(missing_ok=True)
    shutil.rmtree(folders.work, ignore_errors=True)
