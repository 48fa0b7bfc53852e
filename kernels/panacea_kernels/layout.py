"""Maps the rows of one step to their sequences and to the paged KV cache."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

TILE_QUERIES = 16
"""Maximum number of a chunk's tokens that one program of the attention kernel computes."""


@dataclass(frozen=True)
class Span:
    """Consecutive rows of a step that belong to one sequence: its tokens [start, start + count)."""

    slot: int
    start: int
    count: int


@dataclass(frozen=True)
class QueryChunk:
    """Consecutive tokens of one sequence: rows [first, last) of the step. Row `first` is at position `start`."""

    first: int
    last: int
    slot: int
    start: int


@dataclass(frozen=True)
class PagedLayout:
    """The layout of one step. Built once per step and read by every layer.

    Each of the first `decode_rows` rows is a single token of its own sequence. The chunks follow in order.
    """

    positions: torch.Tensor
    """(rows,) int32: each row's position in its sequence."""
    slots: torch.Tensor
    """(rows,) int32: the row of `block_tables` that holds each token's sequence."""
    block_tables: torch.Tensor
    """(slots, most blocks) int32: the blocks of each sequence, in order. Entries beyond its end are undefined."""
    block_size: int
    decode_rows: int
    longest_decode: int
    """Maximum number of tokens that one of the first `decode_rows` rows attends to."""
    chunks: tuple[QueryChunk, ...]
    tiles: torch.Tensor
    """(tiles, 2) int32: the chunks cut into tiles of at most `TILE_QUERIES` rows, as (first row, number of rows)."""

    @classmethod
    def build(
        cls, spans: Sequence[Span], block_tables: torch.Tensor, block_size: int, *, decode: bool = True
    ) -> "PagedLayout":
        """The layout of `spans`, in the order of the step's rows. Spans of one token come first.

        With `decode=False` single tokens are chunks too, so that all rows are computed in the same way.
        """
        decode_rows = next((i for i, span in enumerate(spans) if span.count > 1), len(spans)) if decode else 0
        positions: list[int] = []
        slots: list[int] = []
        chunks: list[QueryChunk] = []
        for index, span in enumerate(spans):
            if index >= decode_rows:
                chunks.append(QueryChunk(len(positions), len(positions) + span.count, span.slot, span.start))
            positions += range(span.start, span.start + span.count)
            slots += [span.slot] * span.count
        longest = max((span.start + 1 for span in spans[:decode_rows]), default=0)
        tiles = [
            (row, min(TILE_QUERIES, chunk.last - row))
            for chunk in chunks
            for row in range(chunk.first, chunk.last, TILE_QUERIES)
        ]
        device = block_tables.device
        pinned = device.type == "cuda"  # a copy from pageable memory would block
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
        """The layout of a decode step whose values only the device knows, as a CUDA graph records it.

        positions and slots are (rows,) int32. Their values may change between replays. With `decode=False` the kernels
        compute the rows as chunks of one token. The reference cannot do this, because it reads chunks on the host.
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
        """(rows,) int64: block * block_size + offset, where each row's key and value are written."""
        positions, slots = self.positions.long(), self.slots.long()
        return self.block_tables[slots, positions // self.block_size] * self.block_size + positions % self.block_size

    @cached_property
    def decode_blocks(self) -> torch.Tensor:
        """(decode_rows, most blocks of any of them): the blocks of the decode rows' sequences."""
        most = -(-self.longest_decode // self.block_size)
        return self.block_tables[:, :most].index_select(0, self.slots[: self.decode_rows])

    def row_by_row(self) -> "PagedLayout":
        """The same step with one chunk per row. The layout must have been built with `decode=False`."""
        chunks = [
            QueryChunk(row, row + 1, chunk.slot, chunk.start + row - chunk.first)
            for chunk in self.chunks
            for row in range(chunk.first, chunk.last)
        ]
        return replace(self, chunks=tuple(chunks))

    def chunk_blocks(self, chunk: QueryChunk) -> torch.Tensor:
        """(1, blocks): the blocks of a chunk's sequence, up to the end of the chunk."""
        end = chunk.start + chunk.last - chunk.first
        return self.block_tables[chunk.slot : chunk.slot + 1, : -(-end // self.block_size)]
