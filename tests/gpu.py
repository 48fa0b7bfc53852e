"""Whether torch has a GPU, without importing torch."""

import ctypes
import importlib.util
from functools import cache
from pathlib import Path


@cache
def has_gpu() -> bool:
    """True if torch's build is one for CUDA and the driver counts at least one device."""
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None or not any((Path(torch.origin).parent / "lib").glob("*torch_cuda*")):
        return False
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
