"""Fixtures for all tests. Nothing here needs a network."""

import importlib.util
import os
import subprocess
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
