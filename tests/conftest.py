"""Settings and fixtures for all tests. No test needs a network.

Nothing here imports torch or transformers: they take seconds, and most files need neither.
"""

import importlib.util
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from typing import Any

import pytest

from panacea.errors import ConfigError
from tests.gpu import has_gpu

PAGE = "tests/web/"
HAS_TRITON = importlib.util.find_spec("triton") is not None


# Torch, Triton and transformers read these when they are imported, and a test module may import them first.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny, and more threads slow each other down
os.environ["HF_HUB_OFFLINE"] = "1"
if not has_gpu():
    os.environ["TRITON_INTERPRET"] = "1"  # where a test asks for the kernels, they run in Triton's interpreter


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """Skips a test that needs Triton where Triton cannot be installed. Where it is installed, nothing is skipped."""
    try:
        return (yield)
    except Exception as error:
        if HAS_TRITON or not _may_come_from_missing_triton(error):
            raise
        pytest.skip(f"needs Triton, which exists for Linux on x86-64 only ({error})")


def _may_come_from_missing_triton(error: Exception) -> bool:
    from panacea_kernels import BackendError  # imports torch, so only after a failure

    return isinstance(error, (BackendError, ModuleNotFoundError, ConfigError, subprocess.CalledProcessError))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Processes of `-n auto`. A GPU has one, because an engine takes most of its memory; each process needs 1 GB."""
    return 0 if has_gpu() else min(4, os.cpu_count() or 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As `--dist loadfile`, and the tests of the page stay in one process: they share a browser and a demo server."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            return PAGE if nodeid.startswith(PAGE) else super()._split_scope(nodeid)

    return Scheduling(config, log) if config.option.dist == "loadfile" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In parallel, the longest comes first, and files without slow tests fill the processes evenly at the end."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: 0 if item.nodeid.startswith(PAGE) else 1 if item.path in slow else 2)


@pytest.fixture(autouse=True)
def commands_leave_no_logs_behind() -> Generator[None]:
    """A command that ran in this process has set up logging to a standard error that is closed by now."""
    root, own = logging.getLogger(), logging.getLogger("panacea")
    handlers, levels = list(root.handlers), (root.level, own.level)
    hooks = sys.excepthook, threading.excepthook
    stderr = sys.stderr
    yield
    sys.stderr = stderr
    for handler in list(root.handlers):
        if handler not in handlers:
            root.removeHandler(handler)
    root.setLevel(levels[0])
    own.setLevel(levels[1])
    sys.excepthook, threading.excepthook = hooks
