"""Chooses the tiles of the fused linear kernel."""

# Triton's functions have no types.
# mypy: disable-error-code="no-untyped-call"

import functools
from dataclasses import dataclass

import triton

from panacea_kernels.chip import Chip


@dataclass(frozen=True)
class FusedTiles:
    """Tile sizes of the fused kernel, and its compile options."""

    block_rows: int
    block_out: int
    block_in: int
    block_rank: int
    splits: int
    num_warps: int
    num_stages: int

    def stage_bytes(self, itemsize: int) -> int:
        """Shared memory of one pipeline stage: one tile each of x, W0 and A."""
        return (self.block_rows + self.block_out + self.block_rank) * self.block_in * itemsize


@functools.lru_cache(maxsize=4096)
def fused_tiles(
    rows: int, in_features: int, sections: tuple[int, ...], rank: int, itemsize: int, chip: Chip, invariant: bool
) -> FusedTiles:
    """The tiles for `rows` rows. Chosen by reasoning and from the compiler's reports, not measured on a GPU yet.

    The loads of W0 bound decode, so one tile takes all rows. Every tile of the output reads x and A again, from L2. So
    the tile is as wide as possible while enough programs remain to fill the chip. If they are too few, the inner
    dimension is split. With `invariant` nothing depends on the number of rows, so each row's sums are formed in the
    same order in any batch.
    """
    block_rank = 0 if not rank else max(16, triton.next_power_of_2(rank))
    # Larger tiles spill: h of rank 256 with more rows, and float32, which does not use tensor cores.
    most_rows = 16 if block_rank > 64 or itemsize == 4 else 128
    block_rows = min(64 if invariant else max(16, triton.next_power_of_2(rows)), most_rows)
    broad = block_rows == 128 if block_rank <= 16 else block_rank == 64 and block_rows <= 32
    block_out = 128 if broad and itemsize == 2 else 64
    block_in = (64 if block_rows == 128 or block_rank > 64 else 128) * 2 // itemsize
    accumulators = block_rows * (block_out + block_rank)
    tiles = FusedTiles(
        block_rows=block_rows,
        block_out=block_out,
        block_in=block_in,
        block_rank=max(block_rank, 16),
        splits=1,
        num_warps=8 if accumulators >= 64 * 96 else 4,
        num_stages=4,
    )
    stages = max(1, min(4, (chip.shared_bytes - 4096) // tiles.stage_bytes(itemsize)))
    programs = sum(-(-size // block_out) for size in sections) * -(-rows // block_rows)
    splits = 1
    while not invariant and programs * splits < chip.multiprocessors and in_features // splits >= 8 * block_in:
        splits *= 2
    return FusedTiles(**{**vars(tiles), "num_stages": stages, "splits": splits})
