"""Copies numbers to the device and back, without waiting for the work that runs there."""

from collections.abc import Sequence

import torch


def to_device(values: Sequence[object], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Numbers, possibly nested, as a tensor of `dtype` on `device`."""
    if device.type != "cuda":
        return torch.tensor(values, dtype=dtype, device=device)
    return torch.tensor(values, dtype=dtype, pin_memory=True).to(device, non_blocking=True)


def bytes_to_device(rows: Sequence[bytes], device: torch.device) -> torch.Tensor:
    """Rows of equal length as a tensor (rows, bytes) uint8 on `device`."""
    tensor = torch.frombuffer(bytearray(b"".join(rows)), dtype=torch.uint8).view(len(rows), -1)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy on the host. It is valid once the device has finished all work that was launched so far."""
    if not tensor.is_cuda:
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
