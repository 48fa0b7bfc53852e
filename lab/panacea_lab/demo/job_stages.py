"""Stages of a long job, with one progress bar. Finished stages are not run again."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from panacea.errors import ConfigError

STATE_FILE = "stages.json"

StageProgress = Callable[[float, dict[str, float]], None]
"""Called with the share of a stage that is done, and with figures to show."""


@dataclass(frozen=True)
class JobStage:
    """A named part of the job; its work writes files, so that later stages and later runs find them."""

    name: str
    share: float
    """Of the whole job's time, as measured; only the progress bar uses it."""
    work: Callable[[StageProgress], None]
    """Called with a function to report its progress to."""


class StageLog:
    """The finished stages of a folder, with their durations."""

    def __init__(self, folder: Path, identity: str) -> None:
        """`identity` describes the job: a folder of another job is not continued.

        Raises `ConfigError` for a folder of another job, and for one that cannot be written.
        """
        self._path = folder / STATE_FILE
        self._identity = identity
        self.seconds: dict[str, float] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self._path.exists():
                state = json.loads(self._path.read_text("utf-8"))
                if state["identity"] != identity:
                    raise ConfigError(
                        f"{folder} holds a training run with another seed or other settings: "
                        "continue that one, choose another folder, or delete it"
                    )
                self.seconds = state["seconds"]
            self._write()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"cannot use {folder} for training: {error}") from error

    def record(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = round(seconds, 1)
        self._write()

    def _write(self) -> None:
        state = {"identity": self._identity, "seconds": self.seconds}
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(state, indent=1) + "\n", "utf-8")
        temporary.replace(self._path)


class _Bar:
    """One bar for the whole job, in hundredths."""

    def __init__(self, stages: list[JobStage], show: bool) -> None:
        self._total = sum(stage.share for stage in stages)
        self._bar = tqdm(
            total=100,
            disable=not show,
            dynamic_ncols=True,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining} {postfix}",
        )
        self._before = 0.0

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()

    def begin(self, number: int, count: int, stage: JobStage) -> None:
        self._bar.set_description_str(f"[{number}/{count}] {stage.name:<10}")
        self._bar.set_postfix_str("")

    def report(self, stage: JobStage, share: float, figures: dict[str, float]) -> None:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if shown:
            self._bar.set_postfix_str(shown, refresh=False)
        self._bar.update((self._before + share * stage.share) / self._total * 100 - self._bar.n)

    def end(self, stage: JobStage) -> None:
        self.report(stage, 1.0, {})
        self._before += stage.share


def run_stages(stages: list[JobStage], log: StageLog, show_progress: bool) -> None:
    """Runs the stages that `log` does not have yet, in order. An interrupted one starts over next time."""
    with _Bar(stages, show_progress) as bar:
        for number, stage in enumerate(stages, 1):
            bar.begin(number, len(stages), stage)
            if stage.name not in log.seconds:
                started = time.monotonic()

                def report(share: float, figures: dict[str, float], stage: JobStage = stage) -> None:
                    bar.report(stage, share, figures)

                stage.work(report)
                log.record(stage.name, time.monotonic() - started)
            bar.end(stage)
