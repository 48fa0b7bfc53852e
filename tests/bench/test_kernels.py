"""`bench kernels` on tiny shapes, by Triton's interpreter where there is no GPU."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is for Linux on x86-64 alone")
from panacea.errors import ConfigError
from panacea_kernels import record_launches, reference
from panacea_kernels.chip import Chip
from panacea_kernels.triton_kernels import linear_tiles
from panacea_lab.bench import projection_kernels, projections, tile_sweep
from panacea_lab.bench.generic_lora import generic_lora
from panacea_lab.bench.measurement import BenchError
from panacea_lab.bench.projection_kernels import KernelsBench
from panacea_lab.bench.projections import BASES, STEERED, Group, Inputs, groups_of, random_inputs, random_weights
from panacea_lab.bench.random_model import read_config
from panacea_lab.bench.tile_sweep import KernelsSweep
from tests.bench.numbers import assert_says_where_it_ran, assert_times_are_finite_and_positive
from tests.kernels.devices import DEVICE, TOLERANCES, relative_error

TINY = KernelsBench("tiny", rows=(1, 5), ranks=(3,), rounds=1)


@pytest.mark.slow
def test_every_path_of_every_projection_is_measured() -> None:
    result = TINY.run()
    assert_times_are_finite_and_positive(result)
    assert_says_where_it_ran(result)
    assert [(cell["group"], cell["rows"]) for cell in result["cells"]] == [
        (name, rows) for name in ("q+k+v", "o", "gate+up", "down") for rows in (1, 5)
    ]
    for cell in result["cells"]:
        assert set(cell["us"]) == set(cell["error"]) == {*BASES, *STEERED}
        assert not cell["skipped"]
        assert cell["over_cublas_us"]["cublas"] == 0
    for line in result["layer"]:
        cells = [cell for cell in result["cells"] if cell["rows"] == line["rows"]]
        assert line["us"]["fused"] == pytest.approx(sum(cell["us"]["fused"]["median"] for cell in cells))
    text = projection_kernels.report(result)
    assert "us per empty graph node" in text
    assert "gate+up" in text


def no_adapter(inputs: Inputs) -> torch.Tensor:
    return torch.nn.functional.linear(inputs.x, inputs.weight)


def nothing_written(inputs: Inputs) -> torch.Tensor:
    return torch.full((inputs.x.shape[0], inputs.weight.shape[0]), torch.nan, device=inputs.x.device)


def one_slot_for_all(inputs: Inputs) -> torch.Tensor:
    return reference.steered_linear(*replace(inputs, slots=torch.ones_like(inputs.slots)).arguments)


@pytest.mark.parametrize("wrong", [no_adapter, nothing_written, one_slot_for_all])
def test_a_wrong_path_ends_the_bench(wrong: Callable[[Inputs], torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection_kernels, "paths", lambda: projections.paths() | {"fused": wrong})
    with pytest.raises(BenchError, match="path 'fused' is wrong for 5 rows, rank 3"):
        KernelsBench("tiny", rows=(5,), ranks=(3,), rounds=1).run()


@pytest.mark.slow
def test_a_budget_that_is_spent_leaves_out_and_says_so() -> None:
    result = KernelsBench("tiny", rows=(1,), ranks=(3,), rounds=1, seconds=0).run()
    assert not result["cells"]
    assert len(result["left_out"]) == 4
    assert "left out for want of time: 4" in projection_kernels.report(result)


@pytest.mark.parametrize("rows", [1, 17, 33])
@pytest.mark.parametrize(("rank", "sections"), [(3, (40,)), (11, (160, 24, 24)), (64, (40, 40))])
def test_the_generic_competitor_computes_the_reference_in_two_launches(
    rows: int, rank: int, sections: tuple[int, ...]
) -> None:
    torch.manual_seed(rows)
    group = Group("odd", 300, sections)
    (inputs,) = random_inputs(group, random_weights(group, 1, torch.float32, DEVICE), rows, rank)
    with record_launches() as launched:
        got = generic_lora(*inputs.arguments)
    assert len(launched) == 2
    assert relative_error(got, reference.steered_linear(*inputs.arguments)) < TOLERANCES[torch.float32]


@pytest.mark.slow
def test_a_sweep_tries_what_fits_and_puts_everything_back() -> None:
    heuristic: Any = linear_tiles.fused_tiles
    result = KernelsSweep(KernelsBench("tiny", rows=(5,), ranks=(3,), rounds=1), most_tiles=2).run()
    assert linear_tiles.fused_tiles is heuristic
    assert_says_where_it_ran(result)
    for cell in result["cells"]:
        assert not cell["failed"]
        assert cell["tried"] == len(cell["best"]) == 2
        assert cell["best"][0]["us"]["median"] <= cell["heuristic"]["us"]["median"]
    assert "0 of them with wrong results" in tile_sweep.report(result)


def test_a_sweep_of_real_shapes_offers_choices_that_fit_the_chip() -> None:
    chip = Chip(multiprocessors=132, shared_bytes=227 * 1024)
    for group in groups_of(read_config("llama-3.1-8b")):
        for rows, rank in ((1, 11), (256, 64)):
            found = tile_sweep.candidates(group, rows, rank, 2, chip, most=40)
            assert len(found) == len(set(found)) == 40
            assert all(tiles.stage_bytes(2) * tiles.num_stages <= chip.shared_bytes for tiles in found[1:])


def test_a_sweep_splits_no_more_tiles_than_are_counted() -> None:
    chip, split = Chip(multiprocessors=132, shared_bytes=227 * 1024), 0
    for group in groups_of(read_config("llama-3.1-8b")):
        for rows in (1, 32, 64, 256):
            for tiles in tile_sweep.candidates(group, rows, 11, 2, chip, most=1000):
                programs = sum(-(-size // tiles.block_out) for size in group.sections) * -(-rows // tiles.block_rows)
                assert tiles.splits == 1 or programs <= chip.multiprocessors
                split += tiles.splits > 1
    assert split > 100


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rows": ()}, "rows must be"),
        ({"ranks": (0,)}, "ranks must be"),
        ({"model": "no-such-model"}, "not one of llama-3.1-8b, qwen2.5-0.5b, tiny"),
        ({"dtype": "int8"}, "no dtype 'int8'"),
    ],
)
def test_wrong_sizes_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(KernelsBench("tiny", rounds=1), **values).run()
