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

import pytest

from panacea.errors import ConfigError
from tests.gpu import has_gpu

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


@pytest.fixture(autouse=True)
def commands_leave_no_logs_behind() -> Generator[None]:
    """A command that ran in this process has set up logging to a standard error that is closed by now."""
    root, own = logging.getLogger(), logging.getLogger("panacea")
    handlers, levels = list(root.handlers), (root.level, own.level)
    hooks = sys.excepthook, threading.excepthook
    yield
    for handler in list(root.handlers):
        if handler not in handlers:
            root.removeHandler(handler)
    root.setLevel(levels[0])
    own.setLevel(levels[1])
    sys.excepthook, threading.excepthook = hooks
