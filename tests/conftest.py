"""Fixtures for all tests. Nothing here needs a network."""

import importlib.util
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Generator

# The tests' models are tiny; more threads only get into each other's way. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

# Without a GPU the kernels run in Triton's interpreter, where a test asks for them. Before triton is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

import panacea_kernels
from panacea.errors import ConfigError

HAS_TRITON = importlib.util.find_spec("triton") is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """Skips what needs Triton where it cannot be had; where it is installed nothing is ever skipped."""
    try:
        return (yield)
    except (panacea_kernels.BackendError, ModuleNotFoundError, ConfigError, subprocess.CalledProcessError) as error:
        if HAS_TRITON:
            raise
        pytest.skip(f"needs Triton, which is for Linux on x86-64 alone ({error})")


@pytest.fixture(autouse=True)
def commands_leave_no_logs_behind() -> Generator[None]:
    """A command that ran in this process set its logs up, for a standard error that is closed by now."""
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
