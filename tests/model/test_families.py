"""Random models of many families against plain transformers with the adapter merged into the weights."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GraniteConfig,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import CheckpointError
from panacea.model.adapter import Adapter, LowRank
from panacea.model.adapter_config import AdapterConfig
from panacea.preference import Dimension, Preference, PreferenceSpace
from tests.engine.asking import requests

SIZES: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FAMILIES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "llama_with_biases": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    "mistral_sliding_window": MistralConfig(**SIZES, sliding_window=9),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=16),
    "gemma": GemmaConfig(**SIZES, head_dim=16),
    "gemma2_softcap": Gemma2Config(**SIZES, head_dim=16, sliding_window=9, attn_logit_softcapping=2.0),
    "gemma3": Gemma3TextConfig(**SIZES, head_dim=16, sliding_window=9),
    "olmo2": Olmo2Config(**SIZES),
    "smollm3": SmolLM3Config(**SIZES),
    "granite": GraniteConfig(**SIZES),
    "phi3_fused_by_itself": Phi3Config(**SIZES),
    "qwen3_moe": Qwen3MoeConfig(
        **SIZES, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, tie_word_embeddings=True
    ),
}
SCALING = 1.5
COLUMNS = (-1, -1, 0, 1, 1)
PREFERENCES: list[Preference | None] = [(1.0, 0.0), (0.0, 1.0), (0.3, 0.7), None]
PROMPT_LENGTHS = (3, 11, 24)
NEAR_TIE = 1e-4
"""CPU GEMMs change last bits with the number of rows: where two logits are this close, either may win."""


def random_checkpoint(folder: Path, config: PreTrainedConfig) -> Adapter:
    """Writes a random base model and a random adapter for all its projections into `folder`."""
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.15)  # large enough that the answers are no constant
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder / "base")
    targets = tuple(
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name != "lm_head" and name[-8:] != "mlp.gate"
    )
    rank = len(COLUMNS)
    modules = {
        name: LowRank(
            torch.randn(rank, model.get_submodule(name).in_features) * 0.2,
            torch.randn(model.get_submodule(name).out_features, rank) * 0.2,
            torch.randn(rank),
        )
        for name in targets
    }
    space = PreferenceSpace((Dimension("helpful"), Dimension("concise")), (1.0, 1.0))
    last_parts = tuple(sorted({name.rpartition(".")[2] for name in targets}))
    adapter = Adapter(AdapterConfig("../base", SCALING, last_parts, COLUMNS, space), modules)
    adapter.write(folder / "adapter")
    return adapter


def merged(folder: Path, adapter: Adapter, preference: Preference | None) -> Any:
    """Plain transformers in float64 with W0 + scaling * B diag(E w) A written into the weights.

    torch has no grouped products in float64 on a CPU, so models with experts are compared in float32.
    """
    experts = "moe" in AutoConfig.from_pretrained(folder / "base").model_type
    dtype = torch.float32 if experts else torch.float64
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=dtype, attn_implementation="eager")
    if preference is not None:
        weights = [1.0 if column == -1 else preference[column] for column in COLUMNS]
        for name, (a, b, e) in adapter.modules.items():
            change = b.to(dtype) @ torch.diag(e.to(dtype) * torch.tensor(weights, dtype=dtype)) @ a.to(dtype)
            model.get_parameter(f"{name}.weight").data += SCALING * change
    return model


def greedy_with_margins(model: Any, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
    """`count` tokens of transformers' own generate, and how far the best logit was ahead of the second at each."""
    result = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=count,
        min_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    margins = [float(step[0].topk(2).values.diff().abs()) for step in result.logits]
    return result.sequences[0, len(prompt) :].tolist(), margins


def prompt_logprobs(model: Any, prompt: list[int]) -> torch.Tensor:
    """(tokens - 1,) of each token but the first, by transformers."""
    with torch.inference_mode():
        logprobs = model(torch.tensor([prompt])).logits[0, :-1].log_softmax(dim=-1)
    scores: torch.Tensor = logprobs.gather(-1, torch.tensor(prompt[1:])[:, None])[:, 0].float()
    return scores


def same_until_a_near_tie(got: list[int], expected: list[int], margins: list[float]) -> bool:
    """Whether they agree up to the first near tie; asserts that they do agree up to there."""
    clear = next((i for i, margin in enumerate(margins) if margin < NEAR_TIE), len(expected))
    assert got[:clear] == expected[:clear]
    return clear == len(expected)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_ids_equal_transformers_generate_with_merged_weights(family: str, tmp_path: Path) -> None:
    adapter = random_checkpoint(tmp_path, FAMILIES[family])
    engine = Engine.load(
        EngineConfig(
            model=tmp_path / "base",
            adapter=tmp_path / "adapter",
            dtype="float32",
            max_batch=12,
            max_step_tokens=16,
            block_size=4,
        )
    )
    generator = torch.Generator().manual_seed(3)
    prompts = [torch.randint(3, 120, (n,), generator=generator).tolist() for n in PROMPT_LENGTHS]
    jobs = [(prompt, preference) for preference in PREFERENCES for prompt in prompts]
    params = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True, prompt_logprobs=0)
    completions = engine.generate(
        requests([prompt for prompt, _ in jobs], [preference for _, preference in jobs], params)
    )
    assert engine.stats.max_step_preferences == len(PREFERENCES)
    whole = 0
    for index, preference in enumerate(PREFERENCES):
        model = merged(tmp_path, adapter, preference)
        for line, prompt in enumerate(prompts):
            expected, margins = greedy_with_margins(model, prompt, 12)
            completion = completions[index * len(prompts) + line]
            whole += same_until_a_near_tie(completion.token_ids, expected, margins)
            assert completion.prompt_logprobs is not None
            scores = torch.tensor([score.logprob for score in completion.prompt_logprobs])
            torch.testing.assert_close(scores, prompt_logprobs(model, prompt), rtol=0, atol=2e-3)
    assert whole >= 10, f"{12 - whole} of 12 answers met a near tie: this model proves nothing"
    answers = {tuple(completion.token_ids) for completion in completions[:: len(prompts)]}
    assert len(answers) > 1, "the preference changed nothing: this model proves nothing"


REFUSED: Mapping[str, tuple[PreTrainedConfig, str]] = {
    "mamba": (MambaConfig(vocab_size=120, hidden_size=48, num_hidden_layers=2, state_size=4), "not supported"),
    "gpt2": (GPT2Config(vocab_size=120, n_embd=48, n_layer=2, n_head=4), "not a linear layer"),
    "attention_in_chunks": (Llama4TextConfig(**SIZES, attention_chunk_size=8), "needs attention_chunk_size"),
    "bidirectional": (Gemma3TextConfig(**SIZES, use_bidirectional_attention=True), "needs use_bidirectional_attention"),
    "dynamic_rope": (
        LlamaConfig(**SIZES, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
        "rope_type 'dynamic'",
    ),
}


def test_an_adapted_output_head_is_refused_because_it_sees_other_rows(tmp_path: Path) -> None:
    adapter = random_checkpoint(tmp_path, FAMILIES["llama"])
    modules = {**adapter.modules, "lm_head": LowRank(torch.ones(5, 48), torch.ones(120, 5), torch.ones(5))}
    config = replace(adapter.config, target_modules=(*PROJECTIONS, "lm_head"))
    Adapter(config, modules).write(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="reads 1 of a step's 3 rows"):
        Engine.load(EngineConfig(model=tmp_path / "base", adapter=tmp_path / "adapter"))


def test_end_of_sequence_ids_outside_the_vocabulary_are_left_out(tmp_path: Path) -> None:
    random_checkpoint(tmp_path, FAMILIES["llama"])
    (tmp_path / "base/generation_config.json").write_text('{"eos_token_id": [2, 100000]}', "utf-8")
    engine = Engine.load(EngineConfig(model=tmp_path / "base"))
    assert engine.info.eos_token_ids == (2,)
    engine.generate([Request([3, 4], None, SamplingParams(max_tokens=3, min_tokens=2))])


@pytest.mark.parametrize(("method", "named"), [("awq", "awq"), ("fp8", "fp8"), (None, "unnamed method")])
def test_quantised_weights_are_refused_before_they_are_read(method: str | None, named: str, tmp_path: Path) -> None:
    FAMILIES["llama"].save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    config["quantization_config"] = {"bits": 4} if method is None else {"bits": 4, "quant_method": method}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match=rf"is quantised \({named}.*\); use weights of 16 or 32 bits"):
        Engine.load(EngineConfig(model=tmp_path))


def test_weights_that_are_cut_off_are_one_clear_line(tmp_path: Path) -> None:
    random_checkpoint(tmp_path, FAMILIES["llama"])
    weights = tmp_path / "base/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is cut off: it has \d+ of \d+ bytes"):
        Engine.load(EngineConfig(model=tmp_path / "base"))


@pytest.mark.parametrize("family", REFUSED)
def test_a_model_that_cannot_be_served_is_refused_at_load(family: str, tmp_path: Path) -> None:
    config, reason = REFUSED[family]
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.save_pretrained(tmp_path / "base")
    space = PreferenceSpace((Dimension("helpful"),), (1.0,))
    part = {"mamba": "in_proj", "gpt2": "c_attn"}.get(family, "q_proj")
    name = {"mamba": "backbone.layers.0.mixer.in_proj", "gpt2": "transformer.h.0.attn.c_attn"}.get(
        family, "model.layers.0.self_attn.q_proj"
    )
    low_rank = LowRank(torch.zeros(1, 48), torch.zeros(48, 1), torch.zeros(1))
    Adapter(AdapterConfig("../base", 1.0, (part,), (0,), space), {name: low_rank}).write(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=reason):
        Engine.load(EngineConfig(model=tmp_path / "base", adapter=tmp_path / "adapter" if family != "mamba" else None))
