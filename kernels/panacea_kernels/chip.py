"""The properties of a GPU from which the launchers choose their tiles."""

import functools
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Chip:
    """A GPU's number of multiprocessors, and the bytes of shared memory available to one program."""

    multiprocessors: int
    shared_bytes: int


# Used without a GPU: in the interpreter and in the ahead-of-time check. The check's kernels must fit the smallest
# data-center chip (an A100 grants 163 KiB to a program).
REFERENCE_CHIP = Chip(multiprocessors=132, shared_bytes=163 * 1024)


def chip_of(device: torch.device) -> Chip:
    """The chip of a device. The driver is queried once per device, so this is safe while a CUDA graph is captured."""
    return _ask(device.index or 0) if device.type == "cuda" else REFERENCE_CHIP


@functools.cache
def _ask(index: int) -> Chip:
    properties = torch.cuda.get_device_properties(index)
    # Absent from torch's stubs and from older builds. 99 KiB is the minimum over all supported chips.
    shared_bytes: int = getattr(properties, "shared_memory_per_block_optin", 99 * 1024)
    return Chip(properties.multi_processor_count, shared_bytes)
