"""CUDA graphs of decode steps: one launch replays all layers of a forward.

The output head is not recorded, because each graph would keep its own logits in memory. For large batches these are
gigabytes.
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
    """A step's inputs on the device, one row per token."""

    given: torch.Tensor
    """(rows,) int32: the token, or `PENDING_TOKEN` if only `SlotTables.last_tokens` has it."""
    positions: torch.Tensor
    """(rows,) int32: each token's position in its sequence."""
    slots: torch.Tensor
    """(rows,) int32: the slot of each token's sequence."""

    @classmethod
    def of(cls, packed: torch.Tensor) -> "StepInputs":
        """From one tensor (3, rows) int32: tokens, positions, slots."""
        return cls(packed[0], packed[1], packed[2])

    def token_ids(self, tables: SlotTables) -> torch.Tensor:
        """(rows,) int64: tokens that the host gave, and the others from `tables.last_tokens`."""
        return torch.where(self.given == PENDING_TOKEN, tables.last_tokens[self.slots], self.given)


Forward = Callable[[StepInputs], torch.Tensor]
"""Computes the states (rows, hidden) of a decode step. It reads only tensors on the device."""


class Recorder(Protocol):
    """Records the device work of a function, so that it can be replayed."""

    def __call__(self, function: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], object]]:
        """Runs `function` and records it. Returns its result, and a replay that writes into the same tensor."""
        ...


class CudaGraphRecorder:
    """Records CUDA graphs. They share one memory pool, because no two of them run at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], object]]:
        function()  # compiles kernels and allocates workspaces, which is not allowed while recording
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = function()
        return result, graph.replay


class DecodeGraphs:
    """Decode steps of up to `most_rows` requests, recorded at padded batch sizes."""

    def __init__(self, forward: Forward, most_rows: int, device: torch.device, recorder: Recorder) -> None:
        """Records all sizes. The largest comes first, so that the smaller ones reuse its memory."""
        # Every row begins at a multiple of 16 bytes, because kernels are compiled for that alignment.
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

        The next replay overwrites the states. Padding rows have token 0, position 0 and slot 0, which belongs to no
        request.
        """
        rows = packed.shape[1]
        size = next(size for size in self._sizes if size >= rows)
        self._packed[:, :rows].copy_(packed, non_blocking=True)
        self._packed[:, rows:size].zero_()
        result, replay = self._graphs[size]
        replay()
        return result[:rows]


def padded_sizes(most_rows: int) -> list[int]:
    """Batch sizes at which graphs are recorded. They are 16 apart from 32 on, and closer together below, where padding
    costs more."""
    sizes = [1, 2, 4, 8, 16, 24, *range(32, most_rows, 16)]
    return [*(size for size in sizes if size < most_rows), most_rows]
