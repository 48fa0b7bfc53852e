"""Every kernel once or twice at odd sizes, without CUDA graphs and without torch's caching: for a memory checker."""

from pathlib import Path
from typing import Any

import torch

import panacea_kernels as pk
from panacea.config import Device, EngineConfig
from panacea.engine.request import Request
from panacea.engine.runner import Runner
from panacea.engine.sampling_params import SamplingParams
from panacea_lab.bench.decode_steps import KeepingRecorder, call_again, engine_over
from panacea_lab.bench.measurement import BenchError, choose_device, choose_dtype
from panacea_lab.bench.projections import check, expected_results, groups_of, paths, random_inputs, random_weights
from panacea_lab.bench.random_model import load_variants, preferences, read_config

RANK = 11


def smoke(device: Device) -> dict[str, Any]:
    """How many projections were checked and how many tokens generated. Raises `BenchError` for a wrong result."""
    where = choose_device(device)
    dtype = choose_dtype("auto", where)
    torch.manual_seed(0)
    checked = 0
    for group in groups_of(read_config("tiny")):
        for rows in (1, 17):
            (inputs,) = random_inputs(group, random_weights(group, 1, dtype, where), rows, RANK)
            expected = expected_results(inputs)
            for name, path in paths().items():
                try:
                    check(name, path, inputs, expected[name])
                except pk.BackendError:
                    continue  # a CPU without the interpreter
                checked += 1
    config = EngineConfig(model=Path("random"), max_batch=3, num_blocks=24)
    (model,) = load_variants(read_config("tiny"), where, dtype, [RANK], config)
    # Graphs cannot be recorded without torch's caching, so decode steps are computed anew each time.
    runner = Runner(model, config, KeepingRecorder(config.max_batch, where, record=call_again))
    engine = engine_over(runner, runner, config, config.max_batch, step_tokens=32)
    prompts = [list(range(length)) for length in (5, 33, 64)]
    params = [
        SamplingParams(max_tokens=6, temperature=temperature, top_k=top_k, top_p=0.9, ignore_eos=True)
        for temperature, top_k in ((0.0, 0), (1.0, 0), (1.0, 7))
    ]
    steered = preferences(len(prompts), RANK, different=True)
    answers = engine.generate([Request(*each) for each in zip(prompts, steered, params, strict=True)])
    generated = sum(len(answer.token_ids) for answer in answers)
    if generated != 18:
        raise BenchError(f"the engine generated {generated} tokens instead of 18")
    return {"bench": "smoke", "checked": checked, "generated": generated}
