"""Per-request sampling and stopping, on the golden model."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.outputs import Completion
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import CheckpointError, ConfigError, RequestFailedError
from panacea.model.loader import choose_device, load_model
from tests.engine.asking import requests
from tests.golden_files import ADAPTER, BASE, golden

GREEDY = SamplingParams(max_tokens=40, temperature=0)
ENDS = next(entry for entry in golden("panacea") if entry.greedy_ids[-1] == 1)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(EngineConfig(model=BASE, adapter=ADAPTER, dtype="float32"))


def generate(engine: Engine, params: SamplingParams) -> Completion:
    return engine.generate([Request(ENDS.prompt_ids, ENDS.preference, params)])[0]


def test_an_answer_stops_at_the_end_of_sequence(engine: Engine) -> None:
    completion = generate(engine, GREEDY)
    assert (completion.token_ids, completion.finish_reason) == (ENDS.greedy_ids, "stop")


def test_ignore_eos_goes_on_to_max_tokens(engine: Engine) -> None:
    completion = generate(engine, replace(GREEDY, ignore_eos=True))
    assert len(completion.token_ids) == 40
    assert completion.token_ids[: len(ENDS.greedy_ids)] == ENDS.greedy_ids
    assert completion.finish_reason == "length"


def test_min_tokens_puts_the_end_off(engine: Engine) -> None:
    least = len(ENDS.greedy_ids) + 3
    completion = generate(engine, replace(GREEDY, min_tokens=least))
    assert len(completion.token_ids) >= least
    assert 1 not in completion.token_ids[:least]


def test_a_stop_token_ends_the_answer_and_is_reported(engine: Engine) -> None:
    stop = ENDS.greedy_ids[2]
    completion = generate(engine, replace(GREEDY, stop_token_ids=(stop,)))
    assert completion.token_ids == ENDS.greedy_ids[: ENDS.greedy_ids.index(stop) + 1]
    assert completion.finish_reason == "stop"


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_request_whose_numbers_overflow_fails_alone_and_leaves_no_trace(temperature: float) -> None:
    broken_token = 300
    config = EngineConfig(model=BASE, adapter=ADAPTER, dtype="float32", num_blocks=16)
    model = load_model(config)
    engine = Engine.over(model, config)
    network: Any = model.network
    embedding = network.get_input_embeddings().weight
    network.get_output_embeddings().weight = torch.nn.Parameter(embedding.clone(), requires_grad=False)
    with torch.no_grad():
        embedding[broken_token] = torch.nan
    params = replace(GREEDY, temperature=temperature, max_tokens=8, ignore_eos=True)
    (alone,) = engine.generate([Request(ENDS.prompt_ids, ENDS.preference, params)])
    for _ in range(3):
        engine.add("good", Request(ENDS.prompt_ids, ENDS.preference, params))
        engine.add("broken", Request([*range(40, 80), broken_token], ENDS.preference, params))
        tokens: list[int] = []
        while engine.has_work:
            for output in engine.step():
                assert output.request_id == "good"
                tokens.append(output.token_id)
        assert [failure.request_id for failure in engine.take_failures()] == ["broken"]
        assert tokens == alone.token_ids
        engine.check_integrity()
        assert (engine.stats.free_blocks, engine.stats.running) == (16, 0)
    assert engine.stats.prefix_hits == 0, "what a failed request has computed is nobody's prefix"
    with pytest.raises(RequestFailedError, match="not finite"):
        engine.generate([Request([broken_token], None, params)])


@pytest.mark.slow
def test_a_seeded_request_gives_the_same_tokens_alone_and_in_any_batch(engine: Engine) -> None:
    entries = golden("panacea")
    params = [
        replace(GREEDY, temperature=0.9, top_p=0.9, seed=seed, choice=seed % 3, ignore_eos=True)
        for seed in range(len(entries))
    ]
    prompts, preferences = [e.prompt_ids for e in entries], [e.preference for e in entries]
    together = engine.generate(requests(prompts, preferences, params))
    for prompt, preference, own, expected in zip(prompts, preferences, params, together, strict=True):
        (alone,) = engine.generate([Request(prompt, preference, own)])
        assert alone.token_ids == expected.token_ids
    assert len({tuple(completion.token_ids) for completion in together}) == len(entries)


def test_logprobs_come_for_every_token_and_belong_to_it(engine: Engine) -> None:
    completion = generate(engine, replace(GREEDY, logprobs=3))
    assert len(completion.logprobs) == len(completion.token_ids) == len(completion.top_logprobs)
    for token, logprob, top in zip(completion.token_ids, completion.logprobs, completion.top_logprobs, strict=True):
        assert top[0] == (token, logprob)
        assert len(top) == 3


def test_a_cache_without_room_for_a_block_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="cannot hold one block"):
        Engine.load(EngineConfig(model=BASE, kv_cache_gib=100 / 2**30))


def test_an_absent_device_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CheckpointError, match="no CUDA device"):
        Engine.load(EngineConfig(model=BASE, device="cuda"))


def test_a_gpu_without_bfloat16_is_left_alone_or_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    reason = "the Tesla T4 has compute capability 7.5, below the minimum 8.0"
    with pytest.raises(CheckpointError, match=f"device is cuda, but {reason}"):
        Engine.load(EngineConfig(model=BASE, device="cuda"))
    assert choose_device(EngineConfig(model=BASE)).type == "cpu"
    assert f"{reason}: running on the CPU instead" in caplog.text
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    assert choose_device(EngineConfig(model=BASE)).type == "cuda"
    assert choose_device(EngineConfig(model=BASE, device="cpu")).type == "cpu"
