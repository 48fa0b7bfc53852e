"""`panacea bench steering`: what it costs that every request has a preference of its own.

Three ways to answer the same requests, measured in turn in one process with the same number of threads:

    mixed       through the engine at once, every request with its own preference
    single      through the engine at once, all with one preference
    sequential  one after the other: the preference is written into the weights (the writing counts), then
                transformers' generate answers
"""

import json
import platform
import secrets
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tqdm import tqdm
from transformers import AutoModelForCausalLM

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import ConfigError
from panacea.model.adapter import Adapter
from panacea.preference import Preference
from panacea.text import ChatMessage, load_model_text


@dataclass(frozen=True)
class SteeringBench:
    """What to measure. Every request generates exactly `tokens` tokens, greedily."""

    base: Path
    adapter: Path
    requests: int = 16
    tokens: int = 64
    rounds: int = 5
    threads: int = 1

    def run(self) -> dict[str, Any]:
        """Measures, and returns medians in generated tokens per second, with all that they depend on."""
        adapter = Adapter.read(self.adapter)
        if len(adapter.config.space.dimensions) < 2:
            raise ConfigError("bench steering needs an adapter with at least two dimensions")
        prompts = self._prompts(adapter.config.space.example_prompts)
        mixed = spread(len(adapter.config.space.dimensions), self.requests)
        engine = Engine.load(
            EngineConfig(model=self.base, adapter=self.adapter, max_batch=self.requests, threads=self.threads)
        )
        merged = MergedModel(self.base, adapter)
        params = SamplingParams(max_tokens=self.tokens, temperature=0, ignore_eos=True)

        def answer(preferences: Sequence[Preference]) -> object:
            salt = secrets.token_hex()  # a new one each time, so that no round finds a prefix of another
            return engine.generate(
                [Request(prompt, own, params, salt) for prompt, own in zip(prompts, preferences, strict=True)]
            )

        ways: dict[str, Callable[[], object]] = {
            "engine_mixed": lambda: answer(mixed),
            "sequential_merged": lambda: [
                merged.generate(prompt, preference, self.tokens)
                for prompt, preference in zip(prompts, mixed, strict=True)
            ],
            "engine_single": lambda: answer([mixed[0]] * self.requests),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for round_number in tqdm(range(self.rounds + 1), desc="bench steering", unit="round", leave=False):
            for name, run_all in ways.items():
                start = time.perf_counter()
                run_all()
                if round_number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - start)
        total = self.requests * self.tokens
        return {
            **{f"{name}_tps": round(total / statistics.median(times), 1) for name, times in seconds.items()},
            "requests": self.requests,
            "different_preferences": len(set(mixed)),
            "tokens_per_request": self.tokens,
            "rounds": self.rounds,
            "threads": torch.get_num_threads(),
            "parameters": engine.info.parameters,
            "most_preferences_in_one_step": engine.stats.max_step_preferences,
            "device": engine.info.device,
            "dtype": engine.info.dtype,
            "machine": f"{platform.system()} {platform.machine()}",
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def _prompts(self, examples: Sequence[str]) -> list[list[int]]:
        text = load_model_text(self.base)
        questions = examples or ("How do I unblock a sink?",)
        return [
            text.prompt_ids([ChatMessage("user", questions[index % len(questions)])]) for index in range(self.requests)
        ]


class MergedModel:
    """A plain transformers model that one preference at a time is written into: what a server without slots does."""

    def __init__(self, base: Path, adapter: Adapter) -> None:
        self._adapter = adapter
        self._model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, use_safetensors=True)
        self._weights: dict[str, torch.Tensor] = {name: self._parameter(name).clone() for name in adapter.modules}

    def _parameter(self, module: str) -> torch.Tensor:
        weight: torch.Tensor = self._model.get_parameter(f"{module}.weight").data
        return weight

    @torch.inference_mode()
    def generate(self, prompt: Sequence[int], preference: Preference, tokens: int) -> list[int]:
        """Writes `preference` into the weights and generates exactly `tokens` tokens, greedily."""
        weights = torch.tensor(self._adapter.config.column_weights(preference))
        for name, (a, b, e) in self._adapter.modules.items():
            scaled = b.float() * (e.float() * weights * self._adapter.config.scaling)
            torch.addmm(self._weights[name], scaled, a.float(), out=self._parameter(name))
        output = self._model.generate(
            torch.tensor([list(prompt)]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
        )
        generated: list[int] = output[0, len(prompt) :].tolist()
        return generated


def spread(dimensions: int, count: int) -> list[Preference]:
    """`count` different preferences all over the simplex, the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    draws = -torch.rand(count, dimensions, generator=generator).clamp_min(1e-6).log()
    return [tuple(row) for row in (draws / draws.sum(dim=1, keepdim=True)).tolist()]


def report(result: dict[str, Any]) -> str:
    """A table for people, and the result as one line of JSON at the end."""
    mixed, sequential = result["engine_mixed_tps"], result["sequential_merged_tps"]
    single = result["engine_single_tps"]
    lines = [
        f"{result['requests']} requests, {result['different_preferences']} different preferences, "
        f"{result['tokens_per_request']} tokens each; {result['parameters'] / 1e6:.1f} M parameters, "
        f"{result['dtype']} on {result['device']}, {result['threads']} thread(s), median of {result['rounds']}",
        "",
        f"{'way':<44}{'tokens/s':>10}{'relative':>10}",
        f"{'engine, every request its own preference':<44}{mixed:>10.0f}{1:>10.2f}",
        f"{'engine, all the same preference':<44}{single:>10.0f}{single / mixed:>10.2f}",
        f"{'one by one, merged weights and generate':<44}{sequential:>10.0f}{sequential / mixed:>10.2f}",
        "",
        f"mixed / one by one: {mixed / sequential:.1f}      mixed / same preference: {mixed / single:.3f}",
        "",
        json.dumps(result),
    ]
    return "\n".join(lines)
