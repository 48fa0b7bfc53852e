"""Tasks in several processes of one thread each, under one progress bar."""

import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import Any

import torch
from tqdm import tqdm
from transformers.utils import logging

from panacea_lab.demo.job_stages import StageLog

WorkerTask = Callable[[], None]
"""Something that a process does; can be pickled. It calls `step` for each of its steps."""

_POLL_S = 0.5


class WorkerPool:
    """Runs tasks, each once: tasks in `log` are already done."""

    def __init__(self, processes: int, log: StageLog, show_progress: bool) -> None:
        self._log = log
        context = multiprocessing.get_context("spawn")
        self._steps: Any = context.Value("q", 0)
        self._executor = ProcessPoolExecutor(processes, context, _begin_process, (self._steps,))
        self._bar = tqdm(unit=" steps", dynamic_ncols=True, disable=not show_progress)

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)
        self._bar.close()

    def run(self, title: str, tasks: Mapping[str, WorkerTask], steps: int) -> None:
        """Runs those of `tasks` (by name) that are not done yet, each of `steps` steps, and returns when all are done.

        The first error of a task is raised here, and no other task is begun.
        """
        missing = {name: task for name, task in tasks.items() if name not in self._log.seconds}
        self._bar.set_description_str(title)
        self._bar.total = self._bar.n + steps * len(missing)
        self._bar.refresh()
        names = {self._executor.submit(_timed, task): name for name, task in missing.items()}
        left = set(names)
        while left:
            done, left = wait(left, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            self._bar.update(self._steps.value - self._bar.n)
            for future in done:
                self._log.record(names[future], future.result())
                self._bar.set_postfix_str(f"{names[future]} is done, {len(left)} to go")


_steps: Any = None
"""In a process of the pool: the steps of all processes."""


def _begin_process(steps: Any) -> None:
    global _steps  # noqa: PLW0603 - the only way in which a process of a pool keeps what it was begun with
    _steps = steps
    torch.set_num_threads(1)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _timed(task: WorkerTask) -> float:
    begin = time.monotonic()
    task()
    return time.monotonic() - begin


def step() -> None:
    """One more step of a task is done."""
    if _steps is not None:
        with _steps.get_lock():
            _steps.value += 1
