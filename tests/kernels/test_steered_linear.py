import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import product

import pytest
import torch

import panacea_kernels
from panacea_kernels import Backend, BackendError
from tests.device_operators import count_device_operators
from tests.full_products import cases
from tests.kernels.devices import DEVICE, DTYPES, TOLERANCES, poisoned_memory, relative_error


def by_the_formula(
    x: torch.Tensor,
    weight: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    table: torch.Tensor,
    slots: torch.Tensor,
    bias: torch.Tensor | None,
    sections: tuple[int, ...] | None,
) -> torch.Tensor:
    """W0 + B diag(w) A, built for each row and each section by itself, in float64."""
    x, weight, a, b, table = (tensor.double() for tensor in (x, weight, a, b, table))
    rank = b.shape[1]
    rows: list[torch.Tensor] = []
    for row, slot in zip(x, slots.tolist(), strict=True):
        parts: list[torch.Tensor] = []
        start = 0
        for section, size in enumerate(sections or (weight.shape[0],)):
            own_a = a[section * rank : (section + 1) * rank]
            steered = weight[start : start + size] + b[start : start + size] @ torch.diag(table[slot]) @ own_a
            parts.append(steered @ row)
            start += size
        rows.append(torch.cat(parts) + (0 if bias is None else bias.double()))
    return torch.stack(rows) if rows else x.new_zeros(0, weight.shape[0])


@pytest.mark.parametrize("rows", [0, 1, 15, 33])
@pytest.mark.parametrize("rank", [1, 3, 11, 64])
@pytest.mark.parametrize("sections", [None, (24, 8, 8), (20, 20)])
@pytest.mark.parametrize("bias", [False, True])
def test_reference_equals_the_formula(rows: int, rank: int, sections: tuple[int, ...] | None, bias: bool) -> None:
    generator = torch.Generator().manual_seed(rows * 1000 + rank)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    groups = len(sections or (1,))
    x, weight, a, b = random(rows, 32), random(40, 32), random(groups * rank, 32), random(40, rank)
    table = random(5, rank)
    table[0] = 0
    slots = torch.randint(0, 5, (rows,), generator=generator, dtype=torch.int32)
    offsets = random(40) if bias else None
    got = panacea_kernels.steered_linear(x, weight, a, b, table, slots, offsets, sections)
    expected = by_the_formula(x, weight, a, b, table, slots, offsets, sections)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-3 if rank > 11 else 2e-4)


def test_a_zero_row_is_exactly_the_base_layer() -> None:
    torch.manual_seed(0)
    x, weight, a, b = torch.randn(4, 16), torch.randn(12, 16), torch.randn(3, 16), torch.randn(12, 3)
    table = torch.cat([torch.zeros(1, 3), torch.randn(1, 3)])
    slots = torch.tensor([0, 1, 0, 1], dtype=torch.int32)
    got = panacea_kernels.steered_linear(x, weight, a, b, table, slots)
    plain = torch.nn.functional.linear(x, weight)
    assert torch.equal(got[[0, 2]], plain[[0, 2]])
    assert not torch.allclose(got[[1, 3]], plain[[1, 3]])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 2e-2)])
def test_sixteen_bit_inputs_stay_close_to_float32(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(1)
    x, weight, a, b = (torch.randn(*s).mul(0.2).to(dtype) for s in ((17, 64), (48, 64), (11, 64), (48, 11)))
    table, slots = torch.rand(6, 11), torch.randint(0, 6, (17,), dtype=torch.int32)
    got = panacea_kernels.steered_linear(x, weight, a, b, table, slots)
    assert got.dtype == dtype
    expected = by_the_formula(x, weight, a, b, table, slots, None, None)
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)


@dataclass(frozen=True)
class Layer:
    """Random inputs of one steered layer."""

    x: torch.Tensor
    weight: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    table: torch.Tensor
    slots: torch.Tensor
    bias: torch.Tensor | None
    sections: tuple[int, ...] | None

    @classmethod
    def random(
        cls,
        rows: int,
        rank: int,
        sections: tuple[int, ...] | None = None,
        size: int = 96,
        dtype: torch.dtype = torch.float32,
        bias: bool = False,
    ) -> "Layer":
        generator = torch.Generator().manual_seed(rows * 1000 + rank)

        def random(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator).to(DEVICE, dtype)

        groups, out = len(sections or (1,)), sum(sections or (40,))
        table = torch.rand(5, rank, generator=generator).to(DEVICE)
        table[0] = 0
        return cls(
            random(rows, size),
            random(out, size) / size**0.5,
            random(groups * rank, size) / size**0.5,
            random(out, rank),
            table,
            torch.randint(0, 5, (rows,), generator=generator, dtype=torch.int32).to(DEVICE),
            random(out) if bias else None,
            sections,
        )

    def run(self, backend: Backend) -> torch.Tensor:
        with poisoned_memory():
            return self.launch(backend)

    def launch(self, backend: Backend) -> torch.Tensor:
        with panacea_kernels.use_backend(backend):
            return panacea_kernels.steered_linear(
                self.x, self.weight, self.a, self.b, self.table, self.slots, self.bias, self.sections
            )

    @property
    def expected(self) -> torch.Tensor:
        return by_the_formula(self.x, self.weight, self.a, self.b, self.table, self.slots, self.bias, self.sections)


PATHS: tuple[Backend, ...] = ("triton_fused", "triton_expand")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("dtype", "rows", "rank", "sections"),
    cases(
        [
            (torch.float32, 1, 11, (24, 8, 8)),
            (torch.float16, 1, 1, None),
            (torch.float16, 15, 3, (70, 70)),
            (torch.float32, 16, 64, None),  # even rows have a bias
            (torch.float16, 16, 11, (24, 8, 8)),
            (torch.float32, 17, 3, (70, 70)),
            (torch.float16, 17, 64, (24, 8, 8)),
            (torch.float32, 31, 1, (70, 70)),
            (torch.float16, 33, 11, None),
            (torch.float32, 33, 64, (70, 70)),
            (torch.float16, 127, 3, (24, 8, 8)),
            (torch.float32, 129, 11, None),
            (torch.float16, 129, 64, (70, 70)),
        ],
        product(DTYPES, [1, 15, 16, 17, 31, 33, 127, 129], [1, 3, 11, 64], [None, (24, 8, 8), (70, 70)]),
    ),
)
def test_kernels_equal_the_formula(
    path: Backend, dtype: torch.dtype, rows: int, rank: int, sections: tuple[int, ...] | None
) -> None:
    layer = Layer.random(rows, rank, sections, dtype=dtype, bias=rows % 2 == 0)
    assert relative_error(layer.run(path), layer.expected) < TOLERANCES[dtype]


@pytest.mark.parametrize("path", PATHS)
def test_kernels_take_ranks_up_to_256(path: Backend) -> None:
    layer = Layer.random(9, 256)
    assert relative_error(layer.run(path), layer.expected) < 1e-5


@pytest.mark.parametrize("size", [1, 33, 1024, 1100])
@pytest.mark.parametrize("path", PATHS)
def test_kernels_take_inner_dimensions_that_fill_no_tile_and_split_long_ones(path: Backend, size: int) -> None:
    layer = Layer.random(5, 3, (24, 8, 8), size=size, bias=True)
    assert relative_error(layer.run(path), layer.expected) < 1e-5


def test_the_inner_dimension_is_split_where_programs_are_few_and_the_parts_add_up_the_same_way_twice() -> None:
    from panacea_kernels.chip import REFERENCE_CHIP
    from panacea_kernels.triton_kernels.linear_tiles import fused_tiles

    layer = Layer.random(5, 3, (24, 8, 8), size=2100)
    assert fused_tiles(5, 2100, (24, 8, 8), 3, 4, REFERENCE_CHIP, False).splits > 1
    first, second = layer.run("triton_fused"), layer.run("triton_fused")
    assert relative_error(first, layer.expected) < 1e-5
    assert torch.equal(first, second), "the counters of the splits were left as they were found"


def test_more_split_tiles_than_counters_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from panacea_kernels.triton_kernels import linear

    layer = Layer.random(5, 3, (24, 8, 8), size=2100)
    monkeypatch.setattr(linear, "_arrivals", lambda device: torch.zeros(2, dtype=torch.int32, device=device))
    with pytest.raises(BackendError, match="3 split tiles exceed the 2 counters"):
        layer.run("triton_fused")


@pytest.mark.parametrize("path", PATHS)
def test_kernels_take_strided_inputs(path: Backend) -> None:
    layer = Layer.random(7, 3, (24, 8, 8))
    wide = torch.full((7, 200), torch.nan, device=DEVICE)
    wide[:, 50:146] = layer.x
    strided = Layer(
        wide[:, 50:146],
        layer.weight.t().contiguous().t(),
        layer.a.t().contiguous().t(),
        layer.b.t().contiguous().t(),
        layer.table,
        layer.slots,
        None,
        layer.sections,
    )
    assert relative_error(strided.run(path), layer.expected) < 1e-5


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # numpy, in the interpreter
@pytest.mark.parametrize("path", PATHS)
def test_kernels_keep_a_zero_row_at_the_base_and_an_overflow_in_its_own_row(path: Backend) -> None:
    layer = Layer.random(20, 11)
    layer.slots[:] = torch.arange(20) % 5
    layer.x[3] = torch.inf
    got = layer.run(path)
    base = layer.x.double() @ layer.weight.double().t()
    zero = [0, 5, 10, 15]
    assert relative_error(got[zero], base[zero]) < 1e-6
    others = [row for row in range(20) if row != 3]
    assert relative_error(got[others], layer.expected[others]) < 1e-5
    assert not got[3].isfinite().any()


@pytest.mark.parametrize("path", PATHS)
def test_kernels_take_no_rows(path: Backend) -> None:
    assert Layer.random(0, 3).run(path).shape == (0, 40)


def test_the_fused_path_is_one_launch_and_the_other_two_products_and_one_launch() -> None:
    layer = Layer.random(5, 3, (24, 8, 8))
    launches: dict[str, list[str]] = {}
    for path in PATHS:
        layer.launch(path)  # workspaces are made on the first call
        with count_device_operators() as launches[path]:
            layer.launch(path)
    assert launches["triton_fused"] == ["_fused_kernel"]
    assert launches["triton_expand"] == ["mm", "mm", "_expand_kernel"]


def test_few_rows_of_a_small_rank_take_the_fused_kernel_and_all_else_the_other() -> None:
    def kernel(rows: int, rank: int, dtype: torch.dtype = torch.float16) -> str:
        with panacea_kernels.record_launches() as kernels:
            Layer.random(rows, rank, dtype=dtype).run("triton")
        return kernels[0]

    assert kernel(1, 11) == kernel(129, 64) == kernel(16, 3, torch.float32) == "_fused_kernel"
    assert kernel(300, 3) == kernel(4, 65) == kernel(17, 3, torch.float32) == "_expand_kernel"


def test_ranks_beyond_the_kernels_take_the_reference() -> None:
    layer = Layer.random(3, panacea_kernels.MAX_RANK + 1, (24, 16))
    with panacea_kernels.record_launches() as kernels:
        result = layer.run("triton")
    assert kernels == []
    assert relative_error(result, layer.expected) < 1e-5


def test_a_forced_path_that_cannot_run_raises() -> None:
    with pytest.raises(BackendError, match="rank 257 is too large: the fused kernel supports ranks up to 256"):
        Layer.random(2, 257).run("triton_fused")
    with pytest.raises(BackendError, match="unknown backend 'cuda'"):
        Layer.random(2, 2).run("cuda")  # type: ignore[arg-type]
    for path in PATHS:
        with pytest.raises(BackendError, match=r"not torch\.float64"):
            Layer.random(2, 2, dtype=torch.float64).run(path)
    turned = Layer.random(96, 3)
    with panacea_kernels.use_backend("triton_fused"), pytest.raises(BackendError, match="contiguous rows"):
        panacea_kernels.linear(turned.x.t(), torch.randn(4, 96, device=DEVICE))


@pytest.mark.slow
def test_triton_cannot_be_forced_on_a_cpu_outside_the_interpreter() -> None:
    code = (
        "import torch, panacea_kernels as pk\n"
        "with pk.use_backend('triton'):\n"
        "    try: pk.silu_mul(torch.ones(2, 4))\n"
        "    except pk.BackendError as error: print(error)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "TRITON_INTERPRET=1" in shown.stdout


def test_without_a_low_rank_path_the_fused_kernel_is_a_linear_layer() -> None:
    layer = Layer.random(17, 3, bias=True)
    with panacea_kernels.use_backend("triton_fused"), panacea_kernels.record_launches() as kernels:
        got = panacea_kernels.linear(layer.x, layer.weight, layer.bias)
    assert (
        relative_error(
            got,
            torch.nn.functional.linear(
                layer.x.double(), layer.weight.double(), layer.bias.double() if layer.bias is not None else None
            ),
        )
        < 1e-5
    )
    assert kernels == ["_fused_kernel"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("rank", [3, 65])
def test_batch_invariance_gives_every_row_the_same_bits_whoever_is_beside_it(backend: Backend, rank: int) -> None:
    layer = Layer.random(140, rank, (70, 70), size=300)
    with panacea_kernels.batch_invariant():
        together = layer.run(backend)
        for count in (1, 3, 17, 70):
            start = 140 - count
            some = Layer(
                layer.x[start:],
                layer.weight,
                layer.a,
                layer.b,
                layer.table,
                layer.slots[start:],
                None,
                layer.sections,
            )
            assert torch.equal(some.run(backend), together[start:])
    assert relative_error(together, layer.expected) < 1e-5
