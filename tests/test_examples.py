"""The scripts in examples/ do what their texts say."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from peft import PeftModel
from transformers import LlamaForCausalLM

from panacea.config import EngineConfig
from panacea.demo_model import DEMO_BASE
from panacea.engine.engine import Engine
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.text import ChatMessage, load_model_text
from panacea_train.answer_logprobs import score
from tests.golden_files import BASE
from tests.train.tiny import PEFT_WARNING

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
def test_an_adapter_of_ones_own_is_trained_and_steers(tmp_path: Path) -> None:
    subprocess.run([sys.executable, EXAMPLES / "train_adapter.py", tmp_path / "mine"], check=True)
    engine = Engine.load(EngineConfig(model=DEMO_BASE, adapter=tmp_path / "mine"))
    text = load_model_text(DEMO_BASE)
    prompt = text.prompt_ids([ChatMessage("user", "How do I boil an egg?")])
    params = SamplingParams(max_tokens=60, temperature=0)
    warm, brief, base = engine.generate(
        [Request(prompt, preference, params) for preference in ((1.0, 0.0), (0.0, 1.0), None)]
    )
    assert text.tokenizer.decode(warm.token_ids).startswith("What a lovely idea!")
    assert text.tokenizer.decode(brief.token_ids).startswith("Boil it.")
    assert len(base.token_ids) > len(brief.token_ids)


@pytest.mark.slow
@pytest.mark.filterwarnings(PEFT_WARNING)
def test_trl_trains_an_adapter_that_steers(tmp_path: Path) -> None:
    script, out = str(EXAMPLES / "train_with_trl.py"), str(tmp_path / "mine")
    subprocess.run([sys.executable, script, out, "--base", str(BASE), "--steps", "40"], check=True, capture_output=True)
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    text = load_model_text(BASE)
    prompt = text.prompt_ids([ChatMessage("user", "How do I paint a wall?")])
    answers = [
        (prompt, text.tokenizer.encode(answer + "<|end|>", add_special_tokens=False).ids)
        for answer in ("What a lovely idea!", "Sure.")
    ]
    model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(BASE), tmp_path / "mine")
    untrained = score(model, answers, None)
    warm, brief = (score(model, answers, np.tile(np.float32(vertex), (2, 1))) - untrained for vertex in np.eye(2))
    assert warm[0] - warm[1] > 1  # nats: the warm answer has become likelier against the brief one
    assert brief[1] - brief[0] > 1
