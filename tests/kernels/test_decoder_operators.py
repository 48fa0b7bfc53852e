"""What a decoder layer computes between its projections, against the formulas in float64."""

from itertools import product

import pytest
import torch

import panacea_kernels as pk
from panacea_kernels import Backend, PagedLayout, Span
from tests.full_products import cases
from tests.kernels.devices import DEVICE, TOLERANCES, poisoned_memory, relative_error

BACKENDS: tuple[Backend, ...] = ("torch", "triton")
ROWS = [1, 15, 16, 17, 31, 33, 127, 129]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    x = x.double()
    return weight.double() * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("dtype", "rows"),
    cases(
        [
            (torch.float32, 1),
            (torch.float16, 15),
            (torch.bfloat16, 16),
            (torch.float32, 17),
            (torch.float16, 31),
            (torch.bfloat16, 33),
            (torch.float16, 127),
            (torch.float32, 129),
        ],
        product(DTYPES, ROWS),
    ),
)
def test_add_rms_norm_gives_the_stream_and_its_norm(backend: Backend, dtype: torch.dtype, rows: int) -> None:
    x, residual, weight = random(rows, 96, dtype=dtype), random(rows, 97, dtype=dtype)[:, 1:], random(96, dtype=dtype)
    with pk.use_backend(backend), poisoned_memory():
        normed, stream = pk.add_rms_norm(x, residual, weight, 1e-5)
        alone, same = pk.add_rms_norm(x, None, weight, 1e-5)
    assert same is x
    assert relative_error(alone, rms_norm(x, weight, 1e-5)) < TOLERANCES[dtype]
    added = x.double() + residual.double()
    assert relative_error(stream, added) < TOLERANCES[dtype]
    assert relative_error(normed, rms_norm(added, weight, 1e-5)) < TOLERANCES[dtype]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_norm_of_tiny_values_needs_its_epsilon(backend: Backend) -> None:
    x, weight = random(3, 40) * 1e-4, random(40)
    with pk.use_backend(backend):
        normed, _ = pk.add_rms_norm(x, None, weight, 1e-5)
    assert relative_error(normed, rms_norm(x, weight, 1e-5)) < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 80, 1024, 1500])
def test_silu_mul_multiplies_the_activated_half_with_the_other(backend: Backend, dtype: torch.dtype, size: int) -> None:
    gate_up = random(17, 2 * size + 3, dtype=dtype)[:, 3:]
    gate_up[0, 0], gate_up[1, 0] = 60, -60
    with pk.use_backend(backend), poisoned_memory():
        got = pk.silu_mul(gate_up)
    gate, up = gate_up.double()[:, :size], gate_up.double()[:, size:]
    assert relative_error(got, gate * torch.sigmoid(gate) * up) < TOLERANCES[dtype]


class Step:
    """Rows of several sequences in scattered blocks of an empty cache."""

    def __init__(self, rows: int, kv_heads: int, dims: tuple[int, int], block_size: int, dtype: torch.dtype) -> None:
        singles = min(rows, 5)
        spans = [Span(slot, 7 * slot, 1) for slot in range(singles)]
        spans += [Span(singles, 11, rows - singles)] if rows > singles + 1 else []
        self.places = [(span.slot, p) for span in spans for p in range(span.start, span.start + span.count)]
        most = -(-(12 + rows + 7 * singles) // block_size)
        order = torch.randperm((singles + 1) * most, generator=torch.Generator().manual_seed(rows))
        self.tables = order.view(singles + 1, most).to(DEVICE, torch.int32)
        self.layout = PagedLayout.build(spans, self.tables, block_size)
        shape = ((singles + 1) * most, block_size, kv_heads)
        self.k_cache = torch.zeros(*shape, dims[0], dtype=dtype, device=DEVICE)
        self.v_cache = torch.zeros(*shape, dims[1], dtype=dtype, device=DEVICE)
        self.block_size = block_size

    @property
    def rows(self) -> int:
        return len(self.places)

    def stored(self, cache: torch.Tensor) -> torch.Tensor:
        """(rows, kv_heads, dim) that lie where the rows belong; raises if anything lies elsewhere."""
        lines = [
            (int(self.tables[slot, position // self.block_size]), position % self.block_size)
            for slot, position in self.places
        ]
        found = torch.stack([cache[block, offset] for block, offset in lines])
        rest = cache.clone()
        for block, offset in lines:
            rest[block, offset] = 0
        assert not rest.any(), "something was stored where it does not belong"
        return found


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", ROWS)
def test_store_puts_every_row_into_its_place_and_nothing_anywhere_else(backend: Backend, rows: int) -> None:
    step = Step(rows, 2, (12, 20), 5, torch.float16)
    k = random(step.rows, 3, 12, dtype=torch.float16)[:, 1:]
    v = random(step.rows, 2, 25, dtype=torch.float16)[..., 5:]
    with pk.use_backend(backend):
        pk.store(k, v, step.k_cache, step.v_cache, step.layout)
    assert torch.equal(step.stored(step.k_cache), k)
    assert torch.equal(step.stored(step.v_cache), v)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("normed", "dtype", "dim"),
    cases(
        [
            (False, torch.float32, 8),
            (True, torch.float16, 8),
            (True, torch.float32, 80),
            (False, torch.float16, 80),
            (True, torch.bfloat16, 80),
        ],
        product([False, True], DTYPES, [8, 80]),
    ),
)
def test_rotate_and_store_turns_pairs_of_queries_and_keys_by_their_positions(
    backend: Backend, normed: bool, dtype: torch.dtype, dim: int
) -> None:
    step = Step(33, 2, (dim, dim), 16, dtype)
    heads, kv_heads, half = 6, 2, dim // 2
    qkv = random(step.rows, (heads + 2 * kv_heads) * dim + 4, dtype=dtype)[:, 4:]
    angles = torch.outer(torch.arange(400), 10_000 ** (-torch.arange(half) / half)).to(DEVICE)
    cos, sin = (f(torch.cat([angles, angles], dim=1)).to(dtype) for f in (torch.cos, torch.sin))
    q_norm, k_norm = (random(dim, dtype=dtype) + shift for shift in (2, 3))
    with pk.use_backend(backend), poisoned_memory():
        q = pk.rotate_and_store(
            qkv,
            cos,
            sin,
            step.k_cache,
            step.v_cache,
            step.layout,
            q_norm if normed else None,
            k_norm if normed else None,
            1e-6,
        )
    states = qkv.double().reshape(step.rows, -1, dim)
    positions = torch.tensor([position for _, position in step.places], device=DEVICE)
    turn = torch.polar(torch.ones_like(angles, dtype=torch.float64), angles.double())[positions][:, None]

    def turned(heads: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        """As complex numbers, whose parts are the two halves of a head."""
        heads = rms_norm(heads, norm, 1e-6) if normed else heads
        product = torch.complex(heads[..., :half], heads[..., half:]) * turn
        return torch.cat([product.real, product.imag], dim=-1)

    tolerance = TOLERANCES[dtype]
    assert relative_error(q, turned(states[:, :heads], q_norm)) < tolerance
    keys = step.stored(step.k_cache)
    assert relative_error(keys, turned(states[:, heads : heads + kv_heads], k_norm)) < tolerance
    assert torch.equal(step.stored(step.v_cache).double(), states[:, heads + kv_heads :])


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_finite_is_stored_as_zero(backend: Backend) -> None:
    step = Step(4, 1, (8, 8), 4, torch.float32)
    qkv = random(step.rows, 3 * 8)
    qkv[0, 8:] = torch.nan
    qkv[1, 16:20] = torch.inf
    table = torch.ones(40, 8, device=DEVICE)
    with pk.use_backend(backend):
        pk.rotate_and_store(qkv, table, 0 * table, step.k_cache, step.v_cache, step.layout)
        stored = step.stored(step.k_cache), step.stored(step.v_cache)
        pk.store(qkv[:, None, 8:16], qkv[:, None, 16:], step.k_cache, step.v_cache, step.layout)
        again = step.stored(step.k_cache), step.stored(step.v_cache)
    for keys, values in (stored, again):
        assert not keys[0].any()
        assert not values[0].any()
        assert torch.equal(values[1], torch.cat([torch.zeros(4, device=DEVICE), qkv[1, 20:]])[None])
        assert torch.equal(keys[2:, 0], qkv[2:, 8:16])


def test_each_is_one_launch() -> None:
    step = Step(9, 2, (8, 8), 4, torch.float32)
    x, table = random(step.rows, 48), random(400, 8)
    with pk.use_backend("triton"), pk.record_launches() as names:
        pk.add_rms_norm(x, x, random(48), 1e-6)
        pk.silu_mul(x)
        pk.store(x.view(-1, 6, 8)[:, :2], x.view(-1, 6, 8)[:, 2:4], step.k_cache, step.v_cache, step.layout)
        pk.rotate_and_store(x, table, table, step.k_cache, step.v_cache, step.layout)
    assert names == ["_add_rms_norm_kernel", "_silu_mul_kernel", "_store_kernel", "_rotate_and_store_kernel"]
