"""The scripts in examples/ do what their texts say."""

import subprocess
import sys
from pathlib import Path

import pytest

from panacea.cli import DEMO
from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.sampling_params import SamplingParams
from panacea.text import ChatMessage, load_model_text

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
def test_an_adapter_of_ones_own_is_trained_and_steers(tmp_path: Path) -> None:
    subprocess.run([sys.executable, EXAMPLES / "train_adapter.py", tmp_path / "mine"], check=True)
    engine = Engine.load(EngineConfig(model=DEMO / "base", adapter=tmp_path / "mine"))
    text = load_model_text(DEMO / "base")
    prompt = text.prompt_ids([ChatMessage("user", "How do I boil an egg?")])
    params = SamplingParams(max_tokens=60, temperature=0)
    warm, brief, base = engine.generate([prompt] * 3, [(1.0, 0.0), (0.0, 1.0), None], params)
    assert text.tokenizer.decode(warm.token_ids).startswith("What a lovely idea!")
    assert text.tokenizer.decode(brief.token_ids).startswith("Boil it.")
    assert len(base.token_ids) > len(brief.token_ids)
