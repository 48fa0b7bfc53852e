"""What the launchers need to know of a GPU to choose their tiles."""

import functools
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Chip:
    """A GPU's number of multiprocessors and the shared memory that one program may have."""

    multiprocessors: int
    shared_bytes: int


# Stands in where there is no GPU to ask: in the interpreter, and for the ahead-of-time check, whose kernels must fit
# the smallest of the data-center chips (an A100 grants 163 KiB to a program).
REFERENCE_CHIP = Chip(multiprocessors=132, shared_bytes=163 * 1024)


def chip_of(device: torch.device) -> Chip:
    """The chip behind a device. Asks the driver once; safe while a CUDA graph is captured."""
    return _ask(device.index or 0) if device.type == "cuda" else REFERENCE_CHIP


@functools.cache
def _ask(index: int) -> Chip:
    properties = torch.cuda.get_device_properties(index)
    # Absent from torch's stubs and from older builds; 99 KiB is the least of all chips that the kernels are made for.
    shared_bytes: int = getattr(properties, "shared_memory_per_block_optin", 99 * 1024)
    return Chip(properties.multi_processor_count, shared_bytes)
