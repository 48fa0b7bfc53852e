"""How large the KV cache becomes on a GPU, on a made-up GPU whose memory the test decides."""

from dataclasses import replace

import pytest
import torch

from panacea.config import EngineConfig
from panacea.engine.kv_cache import KVCache, block_bytes, probe_layers
from panacea.engine.runner import Runner, _free_bytes, _num_blocks  # pyright: ignore[reportPrivateUsage]
from panacea.errors import ConfigError
from panacea.model.loader import LoadedModel, choose_dtype, load_model
from tests.golden_files import ADAPTER, BASE

GIB = 1 << 30
CONFIG = EngineConfig(model=BASE, adapter=ADAPTER, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(CONFIG)


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 GiB, of which others hold 2, torch has reserved 20, and the largest step needed 18 with the weights."""
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (58 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 20 * GIB)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 18 * GIB)


def test_the_cache_gets_the_share_that_weights_activations_and_others_leave(model: LoadedModel) -> None:
    shapes = probe_layers(model)
    assert _free_bytes(CONFIG, model, shapes) == 72 * GIB - 2 * GIB - 18 * GIB
    assert _free_bytes(replace(CONFIG, gpu_memory_share=0.5), model, shapes) == 40 * GIB - 20 * GIB


def test_it_is_no_larger_than_all_requests_could_use_and_keeps_one_block_to_itself(model: LoadedModel) -> None:
    shapes = probe_layers(model)
    assert _num_blocks(CONFIG, model, shapes) == CONFIG.max_batch * model.context_length // CONFIG.block_size
    size = block_bytes(shapes, CONFIG.block_size, model.dtype)
    assert _num_blocks(replace(CONFIG, kv_cache_gib=(7 * size + 5) / 2**30), model, shapes) == 6


def test_a_step_that_does_not_fit_says_what_to_change(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

    monkeypatch.setattr(type(model.decoder), "states", full)
    with pytest.raises(
        ConfigError, match="a step of 511 tokens does not fit beside it: give a smaller max_step_tokens"
    ):
        _free_bytes(CONFIG, model, probe_layers(model))


def test_a_cache_that_does_not_fit_says_what_to_change(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

    monkeypatch.setattr(KVCache, "__init__", full)
    with pytest.raises(ConfigError, match="smaller kv_cache_gib or max_batch"):
        Runner(model, replace(CONFIG, num_blocks=4))


@pytest.mark.parametrize(
    ("stored", "asked", "device", "expected"),
    [
        (torch.float32, "auto", "cuda", torch.bfloat16),
        (None, "auto", "cuda", torch.bfloat16),
        (torch.float16, "auto", "cuda", torch.float16),
        (torch.bfloat16, "auto", "cuda", torch.bfloat16),
        (torch.bfloat16, "auto", "cpu", torch.float32),
        (torch.bfloat16, "float32", "cuda", torch.float32),
    ],
)
def test_a_gpu_computes_in_sixteen_bits_unless_told_otherwise(
    stored: torch.dtype | None, asked: str, device: str, expected: torch.dtype
) -> None:
    config = replace(CONFIG, dtype=asked)  # type: ignore[arg-type]
    assert choose_dtype(config, stored, torch.device(device)) == expected
