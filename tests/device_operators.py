"""What a piece of code would do on a GPU: the kernels it launches and torch's operators that compute something."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

import panacea_kernels

# Operators that move no data: they make no launch on a GPU.
_VIEWS = {
    *("view", "_unsafe_view", "transpose", "t", "detach", "slice", "select", "split", "split_with_sizes", "alias"),
    *("unsqueeze", "squeeze", "expand", "as_strided", "unbind", "reshape", "flatten"),
    *("empty", "new_empty", "empty_like"),
}


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, names: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = names

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        if name not in _VIEWS:
            self._names.append("mm" if name == "linear" else name)  # inference mode keeps F.linear whole
        return func(*args, **(kwargs or {}))


@contextmanager
def count_device_operators() -> Generator[list[str]]:
    """The names of all kernels and computing operators that run inside, in order."""
    names: list[str] = []

    def note(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], options: dict[str, Any]) -> None:
        names.append(kernel.__name__)
        kept = len(names)
        kernel[grid](*args, **options)
        del names[kept:]  # the interpreter computes by torch and numpy; a GPU would not

    with panacea_kernels.intercept_launches(note), _Recorder(names):
        yield names
