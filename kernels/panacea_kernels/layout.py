"""Where the rows of one step stand in the paged KV cache."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

TILE_QUERIES = 16
"""Most tokens of a chunk that one program of the attention kernel takes."""


@dataclass(frozen=True)
class Span:
    """Consecutive rows of a step that belong to one sequence: its tokens [start, start + count)."""

    slot: int
    start: int
    count: int


@dataclass(frozen=True)
class Chunk:
    """Several tokens of one sequence: rows [first, last) of the step, the first of them at position `start`."""

    first: int
    last: int
    slot: int
    start: int


@dataclass(frozen=True)
class PagedLayout:
    """Built once per step, used by every layer.

    The first `decode_rows` rows are single tokens of as many sequences; chunks of several tokens follow, in order.
    """

    positions: torch.Tensor
    """(rows,) int32: each row's position in its sequence."""
    slots: torch.Tensor
    """(rows,) int32: the line of `block_tables` that belongs to each row's sequence."""
    block_tables: torch.Tensor
    """(slots, most blocks) int32: the blocks of each sequence, in order. What lies beyond its end means nothing."""
    block_size: int
    decode_rows: int
    longest_decode: int
    """Most tokens that any of the first `decode_rows` rows attends to."""
    chunks: tuple[Chunk, ...]
    tiles: torch.Tensor
    """(tiles, 2) int32: first row and number of rows of pieces of chunks, each of at most `TILE_QUERIES` rows."""

    @classmethod
    def build(
        cls, spans: Sequence[Span], block_tables: torch.Tensor, block_size: int, *, decode: bool = True
    ) -> "PagedLayout":
        """`spans` in the order of the step's rows: those with one token first.

        Without `decode` single tokens are chunks too, so that every row is computed in the same way.
        """
        decode_rows = next((i for i, span in enumerate(spans) if span.count > 1), len(spans)) if decode else 0
        positions: list[int] = []
        slots: list[int] = []
        chunks: list[Chunk] = []
        for index, span in enumerate(spans):
            if index >= decode_rows:
                chunks.append(Chunk(len(positions), len(positions) + span.count, span.slot, span.start))
            positions += range(span.start, span.start + span.count)
            slots += [span.slot] * span.count
        longest = max((span.start + 1 for span in spans[:decode_rows]), default=0)
        tiles = [
            (row, min(TILE_QUERIES, chunk.last - row))
            for chunk in chunks
            for row in range(chunk.first, chunk.last, TILE_QUERIES)
        ]
        device = block_tables.device
        pinned = device.type == "cuda"  # what is not would be waited for
        return cls(
            positions=torch.tensor(positions, dtype=torch.int32, pin_memory=pinned).to(device, non_blocking=True),
            slots=torch.tensor(slots, dtype=torch.int32, pin_memory=pinned).to(device, non_blocking=True),
            block_tables=block_tables,
            block_size=block_size,
            decode_rows=decode_rows,
            longest_decode=longest,
            chunks=tuple(chunks),
            tiles=torch.tensor(tiles, dtype=torch.int32, pin_memory=pinned).view(-1, 2).to(device, non_blocking=True),
        )

    @classmethod
    def of_decode(
        cls,
        positions: torch.Tensor,
        slots: torch.Tensor,
        block_tables: torch.Tensor,
        block_size: int,
        *,
        decode: bool = True,
    ) -> "PagedLayout":
        """A step of single tokens, known to the device alone: what a CUDA graph records.

        positions and slots (rows,) int32; their values may change between replays. Without `decode` the kernels take
        the rows as chunks of one token; only they can, for the path in plain torch reads chunks on the host.
        """
        rows = positions.shape[0]
        first = torch.arange(0 if decode else rows, dtype=torch.int32, device=positions.device)
        return cls(
            positions=positions,
            slots=slots,
            block_tables=block_tables,
            block_size=block_size,
            decode_rows=rows if decode else 0,
            longest_decode=block_tables.shape[1] * block_size,
            chunks=(),
            tiles=torch.stack([first, torch.ones_like(first)], dim=1),
        )

    @cached_property
    def write_positions(self) -> torch.Tensor:
        """(rows,) int64: block * block_size + offset that each row's key and value are written to."""
        positions, slots = self.positions.long(), self.slots.long()
        return self.block_tables[slots, positions // self.block_size] * self.block_size + positions % self.block_size

    @cached_property
    def decode_blocks(self) -> torch.Tensor:
        """(decode_rows, most blocks that any of them needs): the blocks of the single tokens' sequences."""
        most = -(-self.longest_decode // self.block_size)
        return self.block_tables[:, :most].index_select(0, self.slots[: self.decode_rows])

    def row_by_row(self) -> "PagedLayout":
        """The same step with a chunk for every row of a chunk. Of a layout that was built without `decode`."""
        chunks = [
            Chunk(row, row + 1, chunk.slot, chunk.start + row - chunk.first)
            for chunk in self.chunks
            for row in range(chunk.first, chunk.last)
        ]
        return replace(self, chunks=tuple(chunks))

    def chunk_blocks(self, chunk: Chunk) -> torch.Tensor:
        """(1, blocks): the blocks that hold a chunk's sequence up to the chunk's end."""
        end = chunk.start + chunk.last - chunk.first
        return self.block_tables[chunk.slot : chunk.slot + 1, : -(-end // self.block_size)]
