"""CUDA graphs of decode steps: all layers of a forward replayed with one launch.

The output head is not recorded: each graph would keep its own logits for good, gigabytes where batches are large.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from tqdm import tqdm

from panacea.engine.sequence import PENDING_TOKEN
from panacea.engine.slot_tables import SlotTables


@dataclass(frozen=True)
class StepInputs:
    """A step's inputs on the device, a row for each token."""

    given: torch.Tensor
    """(rows,) int32: the token, or `PENDING_TOKEN` where `SlotTables.last_tokens` has it."""
    positions: torch.Tensor
    """(rows,) int32"""
    slots: torch.Tensor
    """(rows,) int32"""

    @classmethod
    def of(cls, packed: torch.Tensor) -> "StepInputs":
        """From (3, rows) int32."""
        return cls(packed[0], packed[1], packed[2])

    def token_ids(self, tables: SlotTables) -> torch.Tensor:
        """(rows,) int64, whoever knows them."""
        return torch.where(self.given == PENDING_TOKEN, tables.last_tokens[self.slots], self.given)


Forward = Callable[[StepInputs], torch.Tensor]
"""States (rows, hidden) of a decode step, which depend on nothing that the host holds."""


class Recorder(Protocol):
    """Records what a function does on the device, and does it again."""

    def __call__(self, function: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], object]]:
        """Runs `function` once; returns its result and what writes a new result into the same tensor."""
        ...


class CudaGraphRecorder:
    """Records CUDA graphs that share one pool of memory: no two of them run at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], object]]:
        function()  # compiles kernels and makes the workspaces, none of which may happen while recording
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = function()
        return result, graph.replay


class DecodeGraphs:
    """Decode steps of up to `most_rows` requests, recorded at padded batch sizes."""

    def __init__(self, forward: Forward, most_rows: int, device: torch.device, recorder: Recorder) -> None:
        """Records all sizes, the largest first, so that the smaller ones find room in its memory."""
        # Every line begins at a multiple of 16 bytes, which kernels are compiled for.
        self._packed = torch.zeros(3, -(-most_rows // 4) * 4, dtype=torch.int32, device=device)
        self._graphs: dict[int, tuple[torch.Tensor, Callable[[], object]]] = {}
        sizes = padded_sizes(most_rows)
        for size in tqdm(reversed(sizes), total=len(sizes), desc="CUDA graphs", unit="graph", leave=False):
            inputs = StepInputs.of(self._packed[:, :size])
            self._graphs[size] = recorder(lambda inputs=inputs: forward(inputs))  # type: ignore[misc]
        self._sizes = sizes

    def covers(self, rows: int) -> bool:
        return rows <= self._sizes[-1]

    def replay(self, packed: torch.Tensor) -> torch.Tensor:
        """packed (3, rows) int32 on the host or the device (see `StepInputs`) -> states (rows, hidden).

        The states are overwritten by the next replay. Padding rows are requests without a slot, at position 0.
        """
        rows = packed.shape[1]
        size = next(size for size in self._sizes if size >= rows)
        self._packed[:, :rows].copy_(packed, non_blocking=True)
        self._packed[:, rows:size].zero_()
        result, replay = self._graphs[size]
        replay()
        return result[:rows]


def padded_sizes(most_rows: int) -> list[int]:
    """Batch sizes that graphs are recorded at: close together where padding would cost much, 16 apart above 32."""
    sizes = [1, 2, 4, 8, 16, 24, *range(32, most_rows, 16)]
    return [*(size for size in sizes if size < most_rows), most_rows]
