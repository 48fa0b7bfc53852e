"""What every bench of a GPU needs: facts of the machine, clocks, and a table.

Device times are of CUDA graphs between two CUDA events. On a CPU there are no graphs, and times are the wall clock's:
they show that a bench runs, and nothing else.
"""

import math
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import torch
import transformers

from panacea.config import Device, DType
from panacea.errors import ConfigError, PanaceaError

BenchCall = Callable[[], object]

COPY_BYTES = 2 << 30
"""Size of the buffer whose copying gives the bandwidth: some thirty times the L2 of an H200."""
EMPTY_NODES = 1000


class BenchError(PanaceaError):
    """A measurement that would be worthless: a wrong result, or less work done than was asked for."""


@dataclass(frozen=True)
class Samples:
    """Repeated measurements of one thing: the median, and the tenth and ninetieth percentile as its spread."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Samples":
        ordered = sorted(values)
        tenth = len(ordered) // 10
        return cls(statistics.median(ordered), ordered[tenth], ordered[-1 - tenth])

    def rounded(self, digits: int = 2) -> dict[str, float]:
        return {name: round(value, digits) for name, value in vars(self).items()}


class Budget:
    """Seconds that a bench may still take. None is no limit."""

    def __init__(self, seconds: float | None = None) -> None:
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        return self._end - time.monotonic()

    @property
    def spent(self) -> bool:
        return self.left_s <= 0


def choose_device(device: Device) -> torch.device:
    """The device to measure. Raises `ConfigError` if there is none of the kind."""
    if device not in get_args(Device):
        raise ConfigError(f"there is no device {device!r}: choose {', '.join(get_args(Device))}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but torch finds no CUDA device")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device, torch.cuda.current_device()) if device == "cuda" else torch.device("cpu")


def choose_dtype(dtype: DType, device: torch.device) -> torch.dtype:
    """The dtype to measure in; "auto" is bfloat16 on CUDA and float32 on a CPU."""
    if dtype not in get_args(DType):
        raise ConfigError(f"there is no dtype {dtype!r}: choose {', '.join(get_args(DType))}")
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    chosen: torch.dtype = getattr(torch, dtype)
    return chosen


def check_sizes(**sizes: Sequence[int] | int) -> None:
    """Raises `ConfigError` for a list that is empty and a number below 1."""
    for name, given in sizes.items():
        values = (given,) if isinstance(given, int) else given
        if not values or any(value < 1 for value in values):
            raise ConfigError(f"{name} must be whole numbers of at least 1")


def machine(device: torch.device) -> dict[str, Any]:
    """What a number depends on besides the code: the device, and the versions of all that it ran on."""
    facts: dict[str, Any] = {
        "device": device.type,
        "name": _processor(),
        "clock": "CUDA graphs and events" if device.type == "cuda" else "wall clock on a CPU: shows that it runs",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _triton_version(),
        "transformers": transformers.__version__,
        "cuda": torch.version.cuda,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    if device.type == "cuda":
        properties: Any = torch.cuda.get_device_properties(device)
        facts |= {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "l2_bytes": l2_bytes(device),
            "driver": _driver_version(),
        }
    else:
        facts |= {"threads": torch.get_num_threads(), "cores": os.cpu_count()}
    return facts


def machine_line(facts: Mapping[str, Any]) -> str:
    """The facts in one line, for the head of a table."""
    versions = ", ".join(f"{name} {facts[name]}" for name in ("torch", "triton", "transformers") if facts[name])
    cuda = f", CUDA {facts['cuda']}, driver {facts['driver']}" if facts["device"] == "cuda" else ""
    return f"{facts['name']}, {versions}{cuda}, {facts['date']}; {facts['clock']}"


def l2_bytes(device: torch.device) -> int:
    """Size of a GPU's last cache before memory."""
    properties: Any = torch.cuda.get_device_properties(device)
    return int(getattr(properties, "L2_cache_size", 0)) or 64 << 20


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _triton_version() -> str | None:
    try:
        import triton  # noqa: PLC0415 - absent where there is no CUDA either
    except ImportError:
        return None
    version: str = triton.__version__
    return version


def _driver_version() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown"
    asked = subprocess.run(
        [tool, "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return next(iter(asked.stdout.split()), "unknown")


class Recording:
    """Calls that are made in turn by one replay of a CUDA graph; on a CPU one by one."""

    def __init__(self, calls: Sequence[BenchCall], device: torch.device) -> None:
        """Makes every call once, to compile what it needs, and records them."""
        self.calls = calls  # what they hold is read at every replay
        self._graph: Any = None
        for call in calls:
            call()
        if device.type == "cuda":
            torch.cuda.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                for call in calls:
                    call()

    def replay(self) -> None:
        if self._graph is not None:
            self._graph.replay()
            return
        for call in self.calls:
            call()


def device_us(run: BenchCall, device: torch.device, times: int = 1) -> float:
    """Microseconds of one `run`, the mean of `times` in a row."""
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(times):
            run()
        return (time.perf_counter() - start) / times * 1e6
    event: Any = torch.cuda.Event
    before, after = event(enable_timing=True), event(enable_timing=True)
    run()  # while this runs, the host gets ahead of the device: what it needs for launching is not measured
    before.record()
    for _ in range(times):
        run()
    after.record()
    after.synchronize()
    elapsed_ms: float = before.elapsed_time(after)
    return elapsed_ms / times * 1e3


def interleaved_us(recordings: Mapping[str, Recording], device: torch.device, rounds: int) -> dict[str, Samples]:
    """Microseconds of one call of each recording, measured in turn: a clock that drifts drifts for all."""
    values: dict[str, list[float]] = {name: [] for name in recordings}
    for _ in range(rounds):
        for name, recording in recordings.items():
            values[name].append(device_us(recording.replay, device) / len(recording.calls))
    return {name: Samples.of(each) for name, each in values.items()}


def copy_rate(device: torch.device, size_bytes: int | None = None) -> float:
    """Bytes per second, read and written, of a large copy within the device's memory: its bandwidth limit."""
    if size_bytes is None:
        size_bytes = 16 << 20
        if device.type == "cuda":
            size_bytes = min(COPY_BYTES, torch.cuda.mem_get_info(device)[0] // 4)
    source = torch.randint(0, 255, (size_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    times = [device_us(lambda: target.copy_(source), device) for _ in range(20)]
    return 2 * size_bytes / statistics.median(times) * 1e6


def empty_node_us(device: torch.device) -> float:
    """Microseconds of a node of a CUDA graph that does next to nothing: what one more kernel launch costs."""
    one = torch.zeros(1, device=device)
    nodes = Recording([lambda: one.add_(1)] * EMPTY_NODES, device)
    return interleaved_us({"node": nodes}, device, rounds=20)["node"].median


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first one begins at the left, the others end at the right."""
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (header, *rows)
    ]
    return "\n".join(lines)
