"""Model types of transformers: each is served right, or refused in one line that says why. None ends in a traceback.

The listed types run by default; PANACEA_FULL_PRODUCTS=1 runs all that transformers has and that a tiny config builds.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import CheckpointError
from tests.full_products import cases
from tests.model.tiny_configs import tiny_config

SERVED = ("deepseek_v3", "helium", "nanochat", "phimoe", "persimmon")
HYBRID = "is a hybrid of attention and layers that keep another state"
OWN_CODE = "computes attention with code of its own"
REFUSED: Mapping[str, str] = {
    "bamba": HYBRID,
    "falcon_h1": HYBRID,
    "jamba": HYBRID,
    "minimax": HYBRID,
    "nemotron_h": HYBRID,
    "qwen3_next": HYBRID,
    "recurrent_gemma": HYBRID,
    "mamba": "is a recurrent model without attention",
    "falcon": OWN_CODE,
    "gptj": OWN_CODE,
    "xglm": OWN_CODE,
    "bloom": "has ALiBi instead of position embeddings",
    "mpt": "has ALiBi instead of position embeddings",
    "gpt_oss": "sinks",
    "granite_swa": "sinks",
    "mimo_v2_flash": "sinks",
    "deepseek_v32": "has sparse attention",
    "stablelm": "does not pass the engine's arguments on to its attention",
    "bart": "its log probabilities differ from transformers' own",
    "roberta": "its log probabilities differ from transformers' own",
}
TYPES = cases([*SERVED, *REFUSED], MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
BUILT_BY_NONE = {"blt"}
"""Types whose tiny model takes minutes: BLT has a byte model, a patcher and a global model."""


def checkpoint(folder: Path, model_type: str) -> None:
    """Writes a random tiny model. Skips the test if this type has no tiny config, or its own forward fails with it."""
    torch.manual_seed(7)
    try:
        if model_type in BUILT_BY_NONE:
            raise ValueError("it takes minutes")
        model: Any = AutoModelForCausalLM.from_config(tiny_config(model_type)).train(mode=False)  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "conv" not in name:
                nn.init.normal_(parameter, std=0.15)
        with torch.inference_mode():
            model(input_ids=torch.arange(3, 8)[None], use_cache=False)
        model.save_pretrained(folder)
    except Exception as error:
        if model_type in SERVED or model_type in REFUSED:
            raise
        pytest.skip(f"no tiny model of this type can be built here: {type(error).__name__}: {str(error)[:200]}")


def load(folder: Path) -> Engine | str:
    """The engine, or the line of its refusal."""
    try:
        return Engine.load(EngineConfig(model=folder, dtype="float32", device="cpu", num_blocks=60, block_size=4))
    except CheckpointError as error:
        return str(error)


@pytest.mark.parametrize("model_type", TYPES)
def test_a_model_type_is_served_right_or_refused_in_one_line(model_type: str, tmp_path: Path) -> None:
    checkpoint(tmp_path, model_type)
    engine = load(tmp_path)
    assert model_type not in (REFUSED if isinstance(engine, Engine) else SERVED), engine
    if isinstance(engine, str):
        assert "\n" not in engine
        assert REFUSED.get(model_type, "") in engine
        return
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")
    prompt = torch.randint(3, 120, (50,), generator=torch.Generator().manual_seed(3))
    params = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True, logprobs=0, prompt_logprobs=0)
    (answer,) = engine.generate([Request(prompt.tolist(), None, params)])
    tokens = torch.cat([prompt, torch.tensor(answer.token_ids)])
    with torch.inference_mode():
        logprobs = model(input_ids=tokens[None], use_cache=False).logits[0, :-1].float().log_softmax(dim=-1)
    right = logprobs.gather(-1, tokens[1:, None])[:, 0]
    assert answer.prompt_logprobs is not None
    got = torch.tensor([*(score.logprob for score in answer.prompt_logprobs), *answer.logprobs])
    torch.testing.assert_close(got, right, rtol=0, atol=2e-3)
