"""The comparison with transformers at load: which families it accepts, which faults it sees, and who skips it."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    ArceeConfig,
    AutoModelForCausalLM,
    Cohere2Config,
    Ernie4_5Config,
    FalconH1Config,
    Gemma4TextConfig,
    MixtralConfig,
    Olmo3Config,
    PreTrainedConfig,
)
from transformers.models.arcee.modeling_arcee import ArceeMLP

from panacea.config import DType, EngineConfig
from panacea.engine import proof
from panacea.engine.engine import Engine
from panacea.engine.kv_cache import CachedAttention
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.engine.slot_tables import SlotTables
from panacea.errors import CheckpointError
from panacea.model import base_config, decoders
from tests.model.test_families import FAMILIES, SIZES, random_checkpoint

GEMMA4: dict[str, Any] = {
    **SIZES,
    "head_dim": 12,
    "global_head_dim": 12,
    "hidden_size_per_layer_input": 0,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "sliding_window": 9,
}
UNPROVEN: dict[str, PreTrainedConfig] = {
    "cohere2_window": Cohere2Config(
        **SIZES, sliding_window=40, layer_types=[*["sliding_attention"] * 2, "full_attention"]
    ),
    "olmo3_window": Olmo3Config(**SIZES, sliding_window=9),
    "ernie4_5": Ernie4_5Config(**SIZES, head_dim=12),
    "mixtral_experts": MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
    "arcee": ArceeConfig(**SIZES),
    "gemma4_lets_images_see_themselves": Gemma4TextConfig(**GEMMA4, use_bidirectional_attention="vision"),
}
FALCON_H1 = FalconH1Config(
    **SIZES,
    mamba_d_ssm=96,
    mamba_n_heads=8,
    mamba_d_head=12,
    mamba_n_groups=1,
    mamba_d_state=8,
    mamba_chunk_size=8,
    ssm_out_multiplier=4.0,
)
COMPARED = "was compared with transformers' own forward"


def small(folder: Path, *, adapter: bool = True, dtype: DType = "float32", trust_model: bool = False) -> EngineConfig:
    return EngineConfig(
        model=folder / "base",
        adapter=folder / "adapter" if adapter else None,
        dtype=dtype,
        device="cpu",
        block_size=4,
        num_blocks=120,
        trust_model=trust_model,
    )


def test_the_list_of_proven_classes_is_what_the_tests_prove() -> None:
    built = {type(AutoModelForCausalLM.from_config(config)).__name__ for config in FAMILIES.values()}  # type: ignore[no-untyped-call]
    assert built == set(proof.PROVEN)


@pytest.mark.parametrize("family", UNPROVEN)
def test_a_right_family_is_compared_steered_and_served(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    random_checkpoint(tmp_path, UNPROVEN[family])
    with caplog.at_level(logging.INFO):
        engine = Engine.load(small(tmp_path))
    assert sum(COMPARED in line for line in caplog.messages) == 1
    engine.check_integrity()
    assert engine.stats.free_blocks == 120


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", ["cohere2_window", "mixtral_experts"])
def test_in_sixteen_bits_rounding_is_no_fault(family: str, dtype: DType, tmp_path: Path) -> None:
    random_checkpoint(tmp_path, UNPROVEN[family])
    Engine.load(small(tmp_path, dtype=dtype))


def test_a_proven_family_is_not_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    random_checkpoint(tmp_path, FAMILIES["llama"])
    with caplog.at_level(logging.INFO):
        Engine.load(small(tmp_path))
    assert not any(COMPARED in line for line in caplog.messages)


def falcon_h1(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention and Mamba in every layer, with the refusal by its config switched off."""
    monkeypatch.setattr(base_config, "unsupported_attention", lambda _text: None)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(FALCON_H1)  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "conv" not in name:
            nn.init.normal_(parameter, std=0.3)
        if name.endswith("A_log"):
            nn.init.constant_(parameter, -3.0)  # a state that lasts, as trained ones do
    model.save_pretrained(folder / "base")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_state_outside_the_cache_is_seen(dtype: DType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Mamba layers lose their state after each step, which no interface tells."""
    falcon_h1(tmp_path, monkeypatch)
    with pytest.raises(CheckpointError, match=r"FalconH1ForCausalLM is not supported: its log probabilities differ"):
        Engine.load(small(tmp_path, adapter=False, dtype=dtype))


def test_without_the_comparison_it_is_served_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: what `trust_model` skips is needed."""
    falcon_h1(tmp_path, monkeypatch)
    engine = Engine.load(small(tmp_path, adapter=False, trust_model=True))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", attn_implementation="eager")
    prompt = list(range(3, 30))
    (answer,) = engine.generate([Request(prompt, None, SamplingParams(8, temperature=0, ignore_eos=True, logprobs=0))])
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *answer.token_ids]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    right = logits.log_softmax(dim=-1).gather(-1, torch.tensor(answer.token_ids)[:, None])[:, 0]
    assert abs(answer.logprobs[0] - float(right[0])) < 1e-3, "one chunk and no cache: still right"
    assert (torch.tensor(answer.logprobs) - right).abs().max() > 0.1


def lose_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = CachedAttention.attend

    def without_window(cache: CachedAttention, *given: Any) -> torch.Tensor:
        layer, q, k, v, scaling, _, softcap = given
        return attend(cache, layer, q, k, v, scaling, None, softcap)

    monkeypatch.setattr(CachedAttention, "attend", without_window)


def lose_the_preference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SlotTables, "_write_preference", lambda *_given: None)


def scale_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = decoders.TransformersDecoder.logits
    monkeypatch.setattr(decoders.TransformersDecoder, "logits", lambda self, states: logits(self, states) * 1.1)


@pytest.mark.parametrize("fault", [lose_the_window, lose_the_preference, scale_the_scores])
def test_faults_of_the_engine_are_seen(
    fault: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_checkpoint(tmp_path, UNPROVEN["cohere2_window"])
    fault(monkeypatch)
    with pytest.raises(CheckpointError, match="its log probabilities differ from transformers' own by"):
        Engine.load(small(tmp_path))


def test_a_model_that_raises_in_a_step_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_given: object) -> torch.Tensor:
        raise TypeError("got multiple values\nfor argument 'inputs_embeds'")

    random_checkpoint(tmp_path, UNPROVEN["arcee"])
    monkeypatch.setattr(decoders.TransformersDecoder, "logits", broken)
    with pytest.raises(CheckpointError, match="ArceeForCausalLM is not supported") as caught:
        Engine.load(small(tmp_path))
    assert "\n" not in str(caught.value)


def test_an_adapted_layer_that_the_model_does_not_call_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A family that reads `layer.weight` itself would be served without steering there."""

    def by_weight(self: ArceeMLP, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(self.act_fn(self.up_proj(x)), self.down_proj.weight)

    random_checkpoint(tmp_path, UNPROVEN["arcee"])
    monkeypatch.setattr(ArceeMLP, "forward", by_weight)
    with pytest.raises(CheckpointError, match=r"no effect on model\.layers\.0\.mlp\.down_proj: the model"):
        Engine.load(small(tmp_path))
