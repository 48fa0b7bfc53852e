"""`bench decode` on a tiny model: equal work for all variants, and numbers for each."""

from pathlib import Path

import pytest
import torch

from panacea.config import EngineConfig
from panacea.engine.graphs import padded_sizes
from panacea.engine.runner import Runner
from panacea.errors import ConfigError
from panacea.model.steered_linear import SteeredLinear
from panacea_lab.bench import decode
from panacea_lab.bench.decode import DecodeBench
from panacea_lab.bench.decode_steps import (
    KeepingRecorder,
    adapter_bytes,
    decoding_engine,
    fill,
    one_cache,
    token_bytes,
    weight_bytes,
)
from panacea_lab.bench.random_model import load_variants, preferences, read_config
from tests.bench.numbers import assert_says_where_it_ran, assert_times_are_finite_and_positive
from tests.kernels.devices import DEVICE

CONFIG = EngineConfig(model=Path("random"), max_batch=3, num_blocks=24)
TINY = read_config("tiny")


@pytest.mark.slow
def test_all_variants_and_competitors_are_measured_on_the_same_steps() -> None:
    # "aot_eager" traces and captures as a compiler does, and compiles nothing: the seconds that saves are many.
    bench = DecodeBench("tiny", batches=(1, 3), context=40, ranks=(11, 3), rounds=1, compiler="aot_eager")
    result = bench.run()
    assert_times_are_finite_and_positive(result)
    assert_says_where_it_ran(result)
    names = [variant.name for variant in bench.variants(DEVICE)]
    assert {"base", "rank 11, different", "rank 11, one", "rank 3, different"} <= set(names)
    assert [(row["batch"], row["variant"]) for row in result["rows"]] == [(b, name) for b in (1, 3) for name in names]
    for batch in (1, 3):
        rows = {row["variant"]: row for row in result["rows"] if row["batch"] == batch}
        # All read the same weights and the same cache; the adapter is all that comes on top.
        steered = rows["rank 11, different"]["bytes"] - rows["base"]["bytes"]
        assert steered * 3 == (rows["rank 3, different"]["bytes"] - rows["base"]["bytes"]) * 11
        assert rows["rank 11, one"]["bytes"] == rows["rank 11, different"]["bytes"]
        base = min(row["graph_us"]["median"] for name, row in rows.items() if name.startswith("base"))
        over = rows["rank 11, different"]["graph_us"]["median"] - base
        assert rows["rank 11, different"]["graph_over_base_us"] == pytest.approx(over, abs=0.11)
    compiled = [row for row in result["competitors"] if row["name"] == "torch.compile"]
    assert [row["batch"] for row in compiled] == [1, 3]
    assert all(row["us"] and "one graph" in row["remark"] for row in compiled)
    assert sum(row["name"] == "eager" and row["us"] is not None for row in result["competitors"]) == 2
    assert "rank 11, one" in decode.report(result)


@pytest.mark.slow
def test_a_competitor_that_fails_has_a_reason_and_no_number() -> None:
    result = DecodeBench("tiny", batches=(1,), context=8, ranks=(3,), rounds=1, compiler="no_such_compiler").run()
    (row,) = (row for row in result["competitors"] if row["name"] == "torch.compile")
    assert row["us"] is None
    assert "no_such_compiler" in row["remark"]
    assert "no_such_compiler" in decode.report(result)


def test_variants_share_one_set_of_weights_and_one_cache() -> None:
    base, steered = load_variants(TINY, DEVICE, torch.float32, [None, 11], CONFIG)
    own = {name: tensor.data_ptr() for name, tensor in base.network.named_parameters()}
    fused = [name for name, module in base.network.named_modules() if isinstance(module, SteeredLinear)]
    others = dict(steered.network.named_parameters())
    assert len(fused) == 4
    for name in ("model.embed_tokens.weight", "lm_head.weight", *(f"{module}.weight" for module in fused)):
        assert others[name].data_ptr() == own[name]
    first = Runner(base, CONFIG)
    with one_cache(first.cache):
        assert Runner(steered, CONFIG).cache is first.cache
    assert Runner(base, CONFIG).cache is not first.cache


def test_bytes_of_a_step_are_what_the_config_says() -> None:
    base, steered = load_variants(TINY, DEVICE, torch.float32, [None, 11], CONFIG)
    hidden, inner, kv, layers, vocabulary = 64, 96, 32, 2, 256
    weights = layers * (2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * inner + 2 * hidden) + hidden
    assert weight_bytes(base) == weight_bytes(steered) == 4 * (weights + vocabulary * hidden)
    # In and out of q, k, v, o, gate, up and down.
    shapes = [(64, 64), (64, 32), (64, 32), (64, 64), (64, 96), (64, 96), (96, 64)]
    columns = layers * sum(size_in + size_out for size_in, size_out in shapes)
    assert adapter_bytes(base) == 0
    assert adapter_bytes(steered) == 4 * 11 * columns
    assert token_bytes(Runner(base, CONFIG).cache) == layers * 2 * kv * 4


def test_an_engine_starts_in_the_middle_and_every_request_steers() -> None:
    (model,) = load_variants(TINY, DEVICE, torch.float32, [11], CONFIG)
    recorder = KeepingRecorder(3, DEVICE)
    runner = Runner(model, CONFIG, recorder)
    fill(runner.cache)
    assert sorted(recorder.replays) == padded_sizes(3)
    wanted = preferences(3, 11, different=True)
    engine = decoding_engine(runner, CONFIG, wanted, context=50, steps=6)
    filled = [keys.clone() for keys, _ in runner.cache.layers]
    tokens = [engine.step() for _ in range(6)]
    assert [len(each) for each in tokens[1:]] == [3] * 5, "every request gets a token in every step"
    assert all(bool(torch.isfinite(recorder.results[size]).all()) for size in padded_sizes(3))
    assert adapter_columns(model.steering.table[1:4]) == adapter_columns(
        torch.tensor([model.adapter.config.column_weights(each) for each in wanted])  # type: ignore[union-attr]
    )
    # Positions 50 to 55 of three sequences were written, and nothing else but the scratch block.
    for before, (keys, _) in zip(filled, runner.cache.layers, strict=True):
        changed = (keys[:-1] != before[:-1]).flatten(2).any(dim=2)
        assert int(changed.sum()) == 3 * 6
        assert sorted(changed.nonzero()[:, 1].tolist()) == sorted([position % 16 for position in range(50, 56)] * 3)


def adapter_columns(table: torch.Tensor) -> list[list[float]]:
    return sorted([round(value, 5) for value in row] for row in table.tolist())


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="context must leave room"):
        DecodeBench("tiny", context=500)
    with pytest.raises(ConfigError, match="batches must be"):
        DecodeBench("tiny", batches=(0,), context=10)
    if DEVICE.type == "cpu":
        with pytest.raises(ConfigError, match="on a CPU choose the model tiny"):
            DecodeBench("llama-3.1-8b", batches=(1,)).run()
