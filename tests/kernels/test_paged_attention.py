import math
from collections.abc import Sequence
from itertools import product

import pytest
import torch
import torch.nn.functional as F

import panacea_kernels as pk
from panacea_kernels import TILE_QUERIES, Backend, PagedLayout, Span, reference
from panacea_kernels.chip import REFERENCE_CHIP
from tests.full_products import cases
from tests.kernels.devices import DEVICE, DTYPES, TOLERANCES, poisoned_memory, relative_error

BACKENDS: tuple[Backend, ...] = ("torch", "triton")
# Triton 3.6's interpreter asks numpy for what numpy since 1.25 warns of, at the bounds of every loop.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")


def one_query(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None, cap: float | None) -> torch.Tensor:
    """Attention of the newest token, head by head, in float64. q (heads, dim), k and v (tokens, kv_heads, dim)."""
    groups = q.shape[0] // k.shape[1]
    out: list[torch.Tensor] = []
    if window is not None:
        k, v = k[-window:], v[-window:]
    for head in range(q.shape[0]):
        scores = k[:, head // groups].double() @ q[head].double() / math.sqrt(q.shape[1])
        if cap is not None:
            scores = cap * torch.tanh(scores / cap)
        out.append(scores.softmax(0) @ v[:, head // groups].double())
    return torch.stack(out)


class Sequences:
    """Random sequences, whose keys and values lie in scattered blocks of a cache that is full of garbage elsewhere."""

    def __init__(
        self,
        lengths: Sequence[int],
        heads: tuple[int, int] = (4, 2),
        dims: tuple[int, int] = (8, 8),
        block_size: int = 4,
        spare_blocks: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        generator = torch.Generator().manual_seed(sum(lengths))

        def random(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator).to(DEVICE, dtype)

        self.q = [random(length, heads[0], dims[0]) for length in lengths]
        self.k = [random(length, heads[1], dims[0]) for length in lengths]
        self.v = [random(length, heads[1], dims[1]) for length in lengths]
        each = -(-max(lengths) // block_size)
        order = torch.randperm(each * len(lengths), generator=generator).view(len(lengths), each)
        unused = torch.zeros(len(lengths), spare_blocks, dtype=torch.int64)
        self.tables = torch.cat([order, unused], dim=1).to(DEVICE, torch.int32)
        self.block_size = block_size
        blocks = each * len(lengths)
        self.k_cache = random(blocks, block_size, heads[1], dims[0]) * 50
        self.v_cache = random(blocks, block_size, heads[1], dims[1]) * 50

    def layout(self, spans: Sequence[Span], *, decode: bool = True) -> PagedLayout:
        return PagedLayout.build(spans, self.tables, self.block_size, decode=decode)

    def rows(self, states: Sequence[torch.Tensor], spans: Sequence[Span]) -> torch.Tensor:
        return torch.cat([states[span.slot][span.start : span.start + span.count] for span in spans])

    def store(self, spans: Sequence[Span]) -> None:
        k, v = self.rows(self.k, spans), self.rows(self.v, spans)
        reference.store(k, v, self.k_cache, self.v_cache, self.layout(spans))

    def attend(
        self,
        spans: Sequence[Span],
        backend: Backend,
        window: int | None = None,
        cap: float | None = None,
        *,
        decode: bool = True,
    ) -> torch.Tensor:
        q, layout = self.rows(self.q, spans), self.layout(spans, decode=decode)
        with pk.use_backend(backend), poisoned_memory():
            return pk.paged_attention(q, self.k_cache, self.v_cache, layout, q.shape[2] ** -0.5, window, cap)

    def expected(self, spans: Sequence[Span], window: int | None = None, cap: float | None = None) -> torch.Tensor:
        rows = [(span.slot, position) for span in spans for position in range(span.start, span.start + span.count)]
        each = [one_query(self.q[s][p], self.k[s][: p + 1], self.v[s][: p + 1], window, cap) for s, p in rows]
        return torch.stack(each)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("window", "cap", "kv_heads"),
    cases(
        [(None, None, 1), (None, 2.0, 2), (3, None, 4), (3, 2.0, 1), (None, None, 4)],
        product([None, 3], [None, 2.0], [1, 2, 4]),
    ),
)
def test_steps_of_mixed_work_equal_attention_written_out(
    backend: Backend, window: int | None, cap: float | None, kv_heads: int
) -> None:
    """Three sequences grow by chunks and single tokens, in scattered blocks, with garbage in what nobody owns."""
    lengths = [13, 7, 10]
    sequences = Sequences(lengths, (4, kv_heads))
    # (sequence, tokens) per step; single tokens first.
    steps = [[(0, 5), (1, 2)], [(1, 1), (0, 3), (2, 9)], [(2, 1), (0, 5), (1, 2)], [(1, 1)], [(1, 1)]]
    done = [0, 0, 0]
    for step in steps:
        spans = [Span(s, done[s], count) for s, count in step]
        sequences.store(spans)
        got = sequences.attend(spans, backend, window, cap)
        torch.testing.assert_close(got.double(), sequences.expected(spans, window, cap), rtol=1e-4, atol=1e-5)
        for s, count in step:
            done[s] += count
    assert done == lengths


SHAPES: list[tuple[tuple[int, int], tuple[int, int], int, int | None, float | None]] = [
    # heads, dims, block size, window, cap
    ((4, 2), (64, 64), 16, None, None),
    ((4, 4), (64, 80), 16, 20, None),
    ((7, 1), (80, 80), 5, None, 2.0),
    ((14, 2), (16, 16), 16, 9, 2.0),
    ((2, 1), (128, 96), 3, None, None),
    # Heads that share keys, but are too many for one program.
    ((71, 1), (16, 24), 16, None, None),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "shape"),
    cases(
        [(torch.float16, shape) for shape in SHAPES] + [(torch.float32, SHAPES[0]), (torch.float32, SHAPES[3])],
        product(DTYPES, SHAPES),
    ),
)
def test_the_kernel_takes_every_shape_of_heads_and_blocks(
    dtype: torch.dtype, shape: tuple[tuple[int, int], tuple[int, int], int, int | None, float | None]
) -> None:
    """Long and short contexts, split over programs where no window keeps them short; chunks that begin anywhere."""
    heads, dims, block_size, window, cap = shape
    sequences = Sequences([90, 33, 1, 40], heads, dims, block_size, spare_blocks=100, dtype=dtype)
    sequences.store([Span(0, 0, 90), Span(1, 0, 33), Span(3, 0, 40), Span(2, 0, 1)])
    spans = [Span(0, 89, 1), Span(2, 0, 1), Span(1, 0, 33), Span(3, 23, 17)]
    got = sequences.attend(spans, "triton", window, cap)
    assert relative_error(got, sequences.expected(spans, window, cap)) < TOLERANCES[dtype]


@pytest.mark.slow
@pytest.mark.parametrize("rows", cases([1, 15, 16, 17, 33], [1, 15, 16, 17, 31, 33, 127, 129]))
def test_any_number_of_rows_decodes_and_prefills(rows: int) -> None:
    sequences = Sequences([1 + index % 9 for index in range(rows)])
    everything = [Span(index, 0, 1 + index % 9) for index in range(rows)]
    sequences.store(sorted(everything, key=lambda span: span.count > 1))
    newest = [Span(index, index % 9, 1) for index in range(rows)]
    expected = sequences.expected(newest)
    for decode in (True, False):
        assert relative_error(sequences.attend(newest, "triton", decode=decode), expected) < 1e-5
    prompt = Sequences([rows])
    spans = [Span(0, 0, rows)]
    prompt.store(spans)
    assert relative_error(prompt.attend(spans, "triton"), prompt.expected(spans)) < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_prompt_equals_scaled_dot_product_attention(backend: Backend) -> None:
    sequences = Sequences([200], (8, 2), (32, 32), 16)
    spans = [Span(0, 0, 200)]
    sequences.store(spans)
    q, k, v = (states[0].transpose(0, 1)[None] for states in (sequences.q, sequences.k, sequences.v))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1)
    assert relative_error(sequences.attend(spans, backend), expected) < 1e-5


def launches(sequences: Sequences, spans: Sequence[Span], window: int | None = None) -> list[str]:
    with pk.record_launches() as names:
        sequences.attend(spans, "triton", window)
    return names


def test_a_step_is_at_most_three_launches_and_a_short_context_is_not_split() -> None:
    short, long = Sequences([20, 20, 20]), Sequences([20, 20, 20], spare_blocks=100)
    for sequences in (short, long):
        sequences.store([Span(slot, 0, 20) for slot in range(3)])
    decode, chunks = [Span(0, 19, 1), Span(1, 3, 1)], [Span(2, 0, 20)]
    assert launches(short, decode) == ["_attention_kernel"]
    assert launches(short, chunks) == ["_attention_kernel"]
    assert launches(long, decode) == ["_attention_kernel", "_merge_kernel"]
    assert launches(long, [*decode, *chunks]) == ["_attention_kernel", "_merge_kernel", "_attention_kernel"]
    assert launches(long, decode, window=50) == ["_attention_kernel"]


def test_a_context_shorter_than_its_splits_is_merged_right() -> None:
    """32 programs share contexts of 1 to 20 tokens: most have nothing to do."""
    sequences = Sequences([20, 1, 7], (1, 1), spare_blocks=2000)
    sequences.store([Span(1, 0, 1), Span(0, 0, 20), Span(2, 0, 7)])
    spans = [Span(0, 19, 1), Span(1, 0, 1), Span(2, 6, 1)]
    assert relative_error(sequences.attend(spans, "triton"), sequences.expected(spans)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("window", "cap"), cases([(None, None), (200, 2.0)], product([None, 200], [None, 2.0])))
def test_splits_keep_to_window_and_softcap(window: int | None, cap: float | None) -> None:
    """Windows that begin within the first tile, within a later one, and before the sequence."""
    sequences = Sequences([330, 215, 60], (4, 2), (8, 24), 5)
    sequences.store([Span(slot, 0, length) for slot, length in enumerate((330, 215, 60))])
    spans = [Span(0, 329, 1), Span(1, 214, 1), Span(2, 59, 1)]
    assert launches(sequences, spans, window) == ["_attention_kernel", "_merge_kernel"]
    got = sequences.attend(spans, "triton", window, cap)
    assert relative_error(got, sequences.expected(spans, window, cap)) < 1e-5


def test_nothing_is_read_beyond_the_newest_query() -> None:
    """Stricter than the reference, which weights what it reads there with zero: NaN lies in all that is not stored.

    So it does in block 0, which a kernel's masked look at the tables names.
    """
    sequences = Sequences([30, 18, 9], block_size=5, spare_blocks=100)
    blocks = sequences.k_cache.shape[0]
    sequences.tables += 1
    sequences.k_cache = torch.full((blocks + 1, *sequences.k_cache.shape[1:]), torch.nan, device=DEVICE)
    sequences.v_cache = torch.full((blocks + 1, *sequences.v_cache.shape[1:]), torch.nan, device=DEVICE)
    sequences.store([Span(0, 0, 28), Span(1, 0, 17), Span(2, 0, 8)])
    spans = [Span(0, 27, 1), Span(2, 7, 1), Span(1, 3, 14)]
    assert launches(sequences, spans) == ["_attention_kernel", "_merge_kernel", "_attention_kernel"]
    assert relative_error(sequences.attend(spans, "triton"), sequences.expected(spans)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("heads", "window"), cases([((4, 2), None), ((7, 1), 11)], product([(4, 2), (7, 1)], [None, 11]))
)
def test_a_rows_bits_depend_on_no_other_row_of_its_chunk(heads: tuple[int, int], window: int | None) -> None:
    """What batch invariance rests on: a prompt at once, in chunks of 7, and token by token."""
    sequences = Sequences([45], heads, block_size=5)
    sequences.store([Span(0, 0, 45)])
    whole = sequences.attend([Span(0, 0, 45)], "triton", window, decode=False)
    for size in (7, 1):
        starts = range(0, 45, size)
        parts = [sequences.attend([Span(0, s, min(size, 45 - s))], "triton", window, decode=False) for s in starts]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("most_queries", [1, TILE_QUERIES])
def test_programs_of_every_group_take_each_query_and_head_once_and_stay_small(itemsize: int, most_queries: int) -> None:
    from panacea_kernels.triton_kernels.attention import attention_tiles

    for group in range(1, 300):
        for dim in (16, 64, 128, 256, 512):
            tiles = attention_tiles(REFERENCE_CHIP, most_queries, group, dim, itemsize)
            assert most_queries % tiles.queries == 0
            assert tiles.queries * tiles.heads <= tiles.lines
            assert tiles.lines == 16 or tiles.lines * dim <= 128 * 128
            assert tiles.heads == group or tiles.queries == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_queries_may_be_strided(backend: Backend) -> None:
    sequences = Sequences([9])
    spans = [Span(0, 0, 9)]
    sequences.store(spans)
    wide = torch.full((9, 6, 16), torch.nan, device=DEVICE)
    wide[:, 1:5, 4:12] = sequences.q[0]
    with pk.use_backend(backend):
        got = pk.paged_attention(
            wide[:, 1:5, 4:12], sequences.k_cache, sequences.v_cache, sequences.layout(spans), 8**-0.5
        )
    assert relative_error(got, sequences.expected(spans)) < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sequence_that_overflows_does_not_reach_those_who_read_its_blocks_as_padding(backend: Backend) -> None:
    """Block 0 pads every shorter sequence, and the tail of a block once belonged to somebody else."""
    torch.manual_seed(0)
    k_cache, v_cache = torch.zeros(4, 4, 1, 8, device=DEVICE), torch.zeros(4, 4, 1, 8, device=DEVICE)

    def attend(
        spans: list[Span], tables: list[list[int]], q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        layout = PagedLayout.build(spans, torch.tensor(tables, dtype=torch.int32, device=DEVICE), 4)
        with pk.use_backend(backend):
            pk.store(k, v, k_cache, v_cache, layout)
            return pk.paged_attention(q, k_cache, v_cache, layout, 1.0)

    def random(rows: int) -> torch.Tensor:
        return torch.randn(rows, 1, 8).to(DEVICE)

    broken = torch.full((4, 1, 8), torch.nan, device=DEVICE)
    broken[1], broken[2] = torch.inf, -torch.inf
    for block in (0, 2):  # and it is freed
        attend([Span(0, 0, 4)], [[block]], random(4), broken, broken)
    k, v, q = random(6), random(6), random(2)
    attend([Span(0, 0, 4)], [[1]], random(4), k[:4], v[:4])
    got = attend([Span(0, 4, 1), Span(1, 0, 1)], [[1, 2], [3, 0]], q, k[4:], v[4:])
    expected = ((k[:5, 0] @ q[0, 0]).softmax(0) @ v[:5, 0])[None]
    torch.testing.assert_close(got[0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got[1], v[5], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_layout_that_only_the_device_knows_gives_the_same(backend: Backend) -> None:
    """What a CUDA graph records."""
    sequences = Sequences([30, 12, 21])
    sequences.store([Span(slot, 0, length) for slot, length in enumerate((30, 12, 21))])
    spans = [Span(2, 20, 1), Span(0, 7, 1), Span(1, 11, 1)]
    known = sequences.layout(spans)
    layout = PagedLayout.of_decode(known.positions, known.slots, sequences.tables, sequences.block_size)
    q = sequences.rows(sequences.q, spans)
    with pk.use_backend(backend):
        got = pk.paged_attention(q, sequences.k_cache, sequences.v_cache, layout, 8**-0.5)
    assert relative_error(got, sequences.expected(spans)) < 1e-5
