"""The fused forward of the common families against transformers' own layers, and what it costs in device operations."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, MistralConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

import panacea_kernels as pk
from panacea.config import DType, EngineConfig
from panacea.engine.kv_cache import KVCache, probe_layers
from panacea.model.decoders import Decoder, FusedDecoder, TransformersDecoder
from panacea.model.loader import LoadedModel, load_model
from tests.device_operators import count_device_operators
from tests.golden_files import ADAPTER, BASE
from tests.kernels.devices import relative_error
from tests.model.test_families import FAMILIES, SIZES, random_checkpoint

BLOCK_SIZE = 4
ROPE = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
FUSED: dict[str, PreTrainedConfig] = {
    **{name: FAMILIES[name] for name in ("llama", "llama_with_biases", "mistral_sliding_window", "qwen2", "qwen3")},
    "llama_yarn": LlamaConfig(**SIZES, rope_parameters=ROPE),
    "mistral_wide_heads": MistralConfig(**SIZES, head_dim=32, sliding_window=None),
    "qwen2_sliding_above_layer_1": Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=5, max_window_layers=1),
    "qwen3_with_biases": Qwen3Config(**SIZES, head_dim=16, attention_bias=True),
}
OTHERS: dict[str, PreTrainedConfig] = {
    **{name: FAMILIES[name] for name in ("gemma", "gemma2_softcap", "olmo2", "smollm3", "granite", "qwen3_moe")},
    "llama_gelu": LlamaConfig(**SIZES, hidden_act="gelu"),
}


def load(folder: Path, config: PreTrainedConfig) -> LoadedModel:
    random_checkpoint(folder, config)
    return load_model(EngineConfig(model=folder / "base", adapter=folder / "adapter", dtype="float32"))


class Steps:
    """A prompt in two chunks beside a decoding sequence, then single tokens of both, under two preferences."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        device = model.device
        self.cache = KVCache(probe_layers(model), 16, BLOCK_SIZE, device, model.dtype)
        self.tables = torch.arange(1, 17, dtype=torch.int32, device=device).view(2, 8) - 1
        self.tokens = torch.randint(3, 100, (40,), generator=torch.Generator().manual_seed(5)).to(device)
        model.steering.table[1] = torch.linspace(0.2, 1, model.steering.table.shape[1], device=device)

    def logits(self, decoder: Decoder) -> list[torch.Tensor]:
        steps = [
            [pk.Span(0, 0, 7), pk.Span(1, 0, 3)],
            [pk.Span(0, 7, 1), pk.Span(1, 3, 9)],
            [pk.Span(0, 8, 1), pk.Span(1, 12, 1)],
        ]
        return [self.step(decoder, spans) for spans in steps]

    def step(self, decoder: Decoder, spans: list[pk.Span]) -> torch.Tensor:
        return self.prepare(decoder, spans)()

    def prepare(self, decoder: Decoder, spans: list[pk.Span]) -> Callable[[], torch.Tensor]:
        """A step with all its inputs on the device."""
        layout = pk.PagedLayout.build(spans, self.tables, BLOCK_SIZE)
        self.model.steering.slots = layout.slots
        token_ids = torch.cat([self.tokens[20 * span.slot + span.start :][: span.count] for span in spans])
        ends = torch.tensor([span.count for span in spans], device=token_ids.device).cumsum(0) - 1
        every = all(span.count == 1 for span in spans)
        cache = self.cache.step(layout)
        rows = None if every else ends
        return torch.inference_mode()(lambda: decoder.logits(decoder.states(token_ids, cache, rows)))


@pytest.mark.parametrize("family", FUSED)
def test_the_fused_forward_gives_transformers_numbers(family: str, tmp_path: Path) -> None:
    model = load(tmp_path, FUSED[family])
    assert isinstance(model.decoder, FusedDecoder)
    got = Steps(model).logits(model.decoder)
    expected = Steps(model).logits(TransformersDecoder(model.network))
    for step, by_transformers in zip(got, expected, strict=True):
        torch.testing.assert_close(step, by_transformers, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(got[0][0], got[0][1], atol=1e-2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", ["llama", "mistral_sliding_window", "qwen2", "qwen3"])
def test_in_sixteen_bits_it_is_as_close_to_the_truth_as_transformers_is(
    family: str, dtype: DType, tmp_path: Path
) -> None:
    exact = load(tmp_path, FUSED[family])
    truth = torch.cat(Steps(exact).logits(TransformersDecoder(exact.network)))
    config = EngineConfig(model=tmp_path / "base", adapter=tmp_path / "adapter", dtype=dtype)
    model = load_model(config)
    got = relative_error(torch.cat(Steps(model).logits(model.decoder)), truth)
    by_transformers = relative_error(torch.cat(Steps(model).logits(TransformersDecoder(model.network))), truth)
    assert got < 1.5 * by_transformers < 0.05


@pytest.mark.parametrize("family", OTHERS)
def test_families_and_settings_that_it_does_not_know_run_by_transformers(family: str, tmp_path: Path) -> None:
    assert isinstance(load(tmp_path, OTHERS[family]).decoder, TransformersDecoder)


def decode_operators(model: LoadedModel, decoder: Decoder) -> list[str]:
    """What a decode step of two sequences does on the device."""
    step = Steps(model).prepare(decoder, [pk.Span(0, 3, 1), pk.Span(1, 5, 1)])
    with pk.use_backend("triton"):
        step()
        with count_device_operators() as operators:
            step()
    return operators


@pytest.mark.slow
def test_steering_adds_no_launch_to_a_decode_step_which_has_nine_a_layer() -> None:
    """A projection is one launch, cuBLAS' for the base, and the fused kernel's for a steered model."""
    steered = load_model(EngineConfig(model=BASE, adapter=ADAPTER, dtype="float32"))
    base = load_model(EngineConfig(model=BASE, dtype="float32"))
    layer = [
        "_add_rms_norm_kernel", "mm", "_rotate_and_store_kernel", "_attention_kernel", "mm",
        "_add_rms_norm_kernel", "mm", "_silu_mul_kernel", "mm",
    ]  # fmt: skip
    expected = ["embedding", *layer * base.num_layers, "_add_rms_norm_kernel", "mm"]
    assert decode_operators(base, base.decoder) == expected
    fused = ["_fused_kernel" if name == "mm" else name for name in layer]
    expected = ["embedding", *fused * base.num_layers, "_add_rms_norm_kernel", "mm"]
    assert decode_operators(steered, steered.decoder) == expected


def test_transformers_own_layers_take_many_more(tmp_path: Path) -> None:
    """The control: over 30 device operations each."""
    model = load(tmp_path, FUSED["llama"])
    assert len(decode_operators(model, TransformersDecoder(model.network))) > 30 * model.num_layers
