"""The context's length by config, as vLLM derives it, and what the embeddings are beyond the original length."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import CheckpointError, OptionError
from panacea.model.context_length import context_length
from tests.golden_files import BASE
from tests.model.test_families import SIZES, random_checkpoint


def yarn(original: int, factor: float | None = 4.0) -> dict[str, Any]:
    return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}


LINEAR = {"rope_type": "linear", "factor": 8.0}
LONG = {"rope_type": "longrope", "factor": 32.0}
LENGTHS: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({"max_position_embeddings": 4096}, 4096),
    "gpt2": ({"n_positions": 1024}, 1024),
    "mpt": ({"max_seq_len": 2048}, 2048),
    "smallest_counts": ({"max_position_embeddings": 4096, "seq_length": 2048}, 2048),
    "cohere": ({"max_position_embeddings": 8192, "model_max_length": 131072}, 131072),
    "default_rope": ({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "default"}}, 4096),
    "yarn_qwen": ({"max_position_embeddings": 32768, "rope_parameters": yarn(32768)}, 131072),
    "yarn_deepseek": ({"max_position_embeddings": 163840, "rope_parameters": yarn(4096, 40)}, 163840),
    "yarn_no_factor": ({"max_position_embeddings": 128, "rope_parameters": yarn(32, None)}, 128),
    "linear": ({"max_position_embeddings": 2048, "rope_parameters": LINEAR}, 16384),
    "llama3": ({"max_position_embeddings": 131072, "rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, 131072),
    "longrope": (
        {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096, "rope_parameters": LONG},
        4096,
    ),
    "longrope_inside": (
        {"max_position_embeddings": 131072, "rope_parameters": {**LONG, "original_max_position_embeddings": 4096}},
        4096,
    ),
    "mrope": (
        {"max_position_embeddings": 32768, "rope_parameters": {"rope_type": "default", "mrope_section": [8, 12, 12]}},
        32768,
    ),
    "gemma3": (
        {"model_type": "gemma3_text", "max_position_embeddings": 131072, "rope_parameters": {"full_attention": LINEAR}},
        131072,
    ),
    "by_layer_type": (
        {
            "max_position_embeddings": 8192,
            "rope_parameters": {"sliding_attention": {"rope_type": "default"}, "full_attention": yarn(8192)},
        },
        32768,
    ),
}


@pytest.mark.parametrize("case", LENGTHS)
def test_a_scaling_lengthens_the_context_as_in_vllm(case: str) -> None:
    text, length = LENGTHS[case]
    assert context_length(text, None, None) == length
    assert context_length(text, None, length) == length
    with pytest.raises(OptionError, match=f"max_context is {length + 1}, but the model is made for at most {length}"):
        context_length(text, None, length + 1)


def test_dynamic_scaling_is_refused_and_a_model_without_limit_needs_one() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0}
    with pytest.raises(CheckpointError, match="rope_type 'dynamic'"):
        context_length({"max_position_embeddings": 64, "rope_parameters": rope}, None, None)
    with pytest.raises(CheckpointError, match="has no max_position_embeddings: give max_context"):
        context_length({"model_type": "x"}, None, None)
    assert context_length({"model_type": "x"}, None, 99) == 99


@pytest.mark.parametrize("factor", ["4", [4], float("inf"), float("nan")])
def test_a_factor_that_is_no_number_is_one_line(factor: object) -> None:
    rope = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": 32}
    with pytest.raises(CheckpointError, match=r"rope_parameters of config\.json are not valid"):
        context_length({"max_position_embeddings": 64, "rope_parameters": rope}, None, None)


def test_a_huge_context_must_be_asked_for() -> None:
    text = {"max_position_embeddings": 1 << 20, "rope_parameters": {**LINEAR, "factor": 64.0}}
    with pytest.raises(CheckpointError, match="the model's context is 67108864 tokens, more than 16777216"):
        context_length(text, None, None)
    assert context_length(text, None, 5000) == 5000


@pytest.mark.parametrize(("stored", "length"), [(512, 512), (10**30, 1024), (None, 1024), (True, 1024), ("7", 1024)])
def test_the_tokenizers_limit_counts(stored: object, length: int, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": stored}), "utf-8")
    assert context_length({"max_position_embeddings": 1024}, tmp_path, None) == length


SHORT_SIZES: dict[str, Any] = {**SIZES, "max_position_embeddings": 32}
SCALED: dict[str, PreTrainedConfig] = {
    "llama_yarn": LlamaConfig(**SHORT_SIZES, rope_parameters={**yarn(32), "rope_theta": 1e4}),
    "qwen2_linear": Qwen2Config(**SHORT_SIZES, rope_parameters={**LINEAR, "factor": 4.0, "rope_theta": 1e4}),
    "qwen3_longrope": Qwen3Config(
        **SIZES,
        head_dim=16,
        rope_parameters={
            **LONG,
            "rope_theta": 1e4,
            "original_max_position_embeddings": 100,
            "short_factor": [1.0 + i / 8 for i in range(8)],
            "long_factor": [2.0 + i for i in range(8)],
        },
    ),
}


@pytest.mark.parametrize("family", SCALED)
def test_positions_beyond_the_original_length_are_transformers_own(family: str, tmp_path: Path) -> None:
    random_checkpoint(tmp_path, SCALED[family])
    engine = Engine.load(EngineConfig(model=tmp_path / "base", dtype="float32", device="cpu", max_step_tokens=64))
    length = engine.info.context_length
    assert length == (100 if family == "qwen3_longrope" else 128)
    prompt = torch.randint(3, 120, (length - 1,), generator=torch.Generator().manual_seed(4))
    (answer,) = engine.generate([Request(prompt.tolist(), None, SamplingParams(1, temperature=0, prompt_logprobs=0))])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", attn_implementation="eager")
    with torch.inference_mode():
        logprobs = model(prompt[None]).logits[0, :-1].log_softmax(dim=-1)
    right = logprobs.gather(-1, prompt[1:, None])[:, 0]
    assert answer.prompt_logprobs is not None
    got = torch.tensor([score.logprob for score in answer.prompt_logprobs])
    torch.testing.assert_close(got, right, rtol=0, atol=1e-4)


def test_a_context_that_the_cache_cuts_is_told(caplog: pytest.LogCaptureFixture) -> None:
    config = EngineConfig(model=BASE, device="cpu", num_blocks=4)
    with caplog.at_level(logging.WARNING):
        assert Engine.load(config).info.context_length == 64
    assert any("the context is 64 tokens of the model's" in line for line in caplog.messages)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        Engine.load(replace(config, max_context=64))
    assert not any("the context is" in line for line in caplog.messages)
