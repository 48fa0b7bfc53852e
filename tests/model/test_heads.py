"""Families whose output head needs more than a product: scores and tokens against transformers' own forward.

Without an adapter, and through `TransformersDecoder`. `test_families.py` proves steering.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BioGptConfig,
    CohereConfig,
    CTRLConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma4Config,
    Gemma4TextConfig,
    GPT2Config,
    GPTBigCodeConfig,
    GPTNeoXConfig,
    GraniteConfig,
    NanoChatConfig,
    OPTConfig,
    PreTrainedConfig,
)

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.sampling_params import SamplingParams
from tests.engine.asking import requests
from tests.model.test_families import SIZES

VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "image_size": 28,
    "patch_size": 14,
}
GPT2_SIZES: dict[str, Any] = {
    "vocab_size": 120, "n_positions": 128, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_inner": 64,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
OPT = OPTConfig(
    vocab_size=120, hidden_size=48, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=128, word_embed_proj_dim=24, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
GEMMA4_TEXT: dict[str, Any] = {**SIZES, "head_dim": 12, "global_head_dim": 12, "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 120, "num_kv_shared_layers": 1,
    "layer_types": ["sliding_attention", "full_attention", "full_attention"], "sliding_window": 9}  # fmt: skip
FAMILIES: Mapping[str, PreTrainedConfig] = {
    "gpt2": GPT2Config(**GPT2_SIZES),
    "bigcode_without_shared_heads": GPTBigCodeConfig(**GPT2_SIZES, multi_query=False),
    "bigcode": GPTBigCodeConfig(**GPT2_SIZES),
    "pythia": GPTNeoXConfig(**SIZES),
    "opt_calls_a_part_of_its_base": OPT,
    "biogpt": BioGptConfig(**SIZES, scale_embedding=True),
    "ctrl": CTRLConfig(**{key: value for key, value in GPT2_SIZES.items() if key != "n_inner"}, dff=64),
    "gemma2_caps_its_logits": Gemma2Config(**SIZES, head_dim=12, final_logit_softcapping=2.0),
    "gemma3_with_images": Gemma3Config(
        text_config={**SIZES, "head_dim": 12, "sliding_window": 9}, vision_config=VISION, mm_tokens_per_image=4
    ),
    "gemma4": Gemma4TextConfig(**GEMMA4_TEXT),
    "gemma4_with_images": Gemma4Config(text_config=GEMMA4_TEXT, vision_config=VISION, audio_config=None),
    "granite_scales_its_logits": GraniteConfig(**SIZES, logits_scaling=8.0),
    "cohere_scales_its_logits": CohereConfig(**SIZES, logit_scale=0.25),
    "nanochat": NanoChatConfig(**SIZES),
}
PROMPTS = [[5, 6, 7, 8], [11], [*range(20, 47)]]


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_are_scored_and_continued_as_by_the_familys_own_forward(family: str, tmp_path: Path) -> None:
    torch.manual_seed(7)
    model: Any = AutoModelForCausalLM.from_config(FAMILIES[family])  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(tmp_path)
    engine = Engine.load(
        EngineConfig(model=tmp_path, dtype="float32", device="cpu", max_batch=4, max_step_tokens=16, block_size=4)
    )
    params = SamplingParams(max_tokens=6, temperature=0, ignore_eos=True, prompt_logprobs=2, logprobs=0)
    scoring = SamplingParams(max_tokens=0, prompt_logprobs=1)
    answers = engine.generate(requests(PROMPTS, [None] * 3, params))
    scores = engine.generate(requests(PROMPTS, [None] * 3, scoring))
    own: Any = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")
    for prompt, answer, scored in zip(PROMPTS, answers, scores, strict=True):
        whole = [*prompt, *answer.token_ids]
        with torch.inference_mode():
            logits = own(input_ids=torch.tensor([whole]), use_cache=False).logits[0, :-1]
        right = logits.float().log_softmax(dim=-1).gather(-1, torch.tensor(whole[1:])[:, None])[:, 0].tolist()
        assert answer.prompt_logprobs is not None
        assert scored.prompt_logprobs is not None
        got = [score.logprob for score in answer.prompt_logprobs] + answer.logprobs
        assert got == pytest.approx(right, abs=1e-4)
        assert [score.logprob for score in scored.prompt_logprobs] == pytest.approx(right[: len(prompt) - 1], abs=1e-4)
        assert answer.token_ids == logits[len(prompt) - 1 :].argmax(dim=-1).tolist()
