"""Where the kernels are tested: on a GPU if there is one, else in Triton's interpreter on the CPU."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""The interpreter's tl.dot knows no bfloat16, so that is tested on a GPU alone."""
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if DEVICE.type == "cuda" else [])]
TOLERANCES = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 2e-2}
"""Relative errors that are rounding: of a whole result in the Euclidean norm."""


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """|got - expected| / |expected| in the Euclidean norm, NaN if anything is not finite."""
    return float((got.double() - expected.double()).norm() / expected.double().norm())


@contextmanager
def poisoned_memory() -> Generator[None]:
    """Memory that is given out to be written is full of NaN inside: what a kernel leaves unwritten shows."""
    plain_new, plain = torch.Tensor.new_empty, torch.empty

    def poisoned(made: torch.Tensor) -> torch.Tensor:
        return made.fill_(torch.nan) if made.is_floating_point() else made

    def new_empty(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return poisoned(plain_new(self, *args, **kwargs))

    def empty(*args: Any, **kwargs: Any) -> torch.Tensor:
        return poisoned(plain(*args, **kwargs))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "new_empty", new_empty)
        patch.setattr(torch, "empty", empty)
        yield
