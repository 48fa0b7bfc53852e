"""Where the kernels run is decided before torch is imported, and torch agrees."""

import torch

import panacea_kernels
from tests.gpu import has_gpu


def test_the_driver_counts_a_gpu_exactly_where_torch_does() -> None:
    assert has_gpu() == torch.cuda.is_available()
    assert panacea_kernels.interpreting() == (not torch.cuda.is_available())
