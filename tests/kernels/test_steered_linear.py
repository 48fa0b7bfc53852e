import pytest
import torch

import panacea_kernels


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
