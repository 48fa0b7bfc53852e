"""`panacea bench throughput`: tokens per second for a mix of requests, and transformers' on the same machine.

    different     this engine, every request with a preference of its own
    one           this engine, all requests with one preference
    base          this engine without an adapter
    transformers  the bare base by transformers' own continuous batching (`panacea_lab.bench.continuous_batching`)

All ways get the same prompts and generate the same numbers of tokens, greedily, in every round. A way that generates
fewer tokens has no result. Every round has new prompts, so that prefix caches do not help.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from panacea.config import Device, DType, EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import ConfigError, first_line
from panacea.preference import Preference
from panacea_lab.bench.continuous_batching import ContinuousBatching
from panacea_lab.bench.measurement import (
    BenchError,
    Budget,
    Samples,
    check_sizes,
    choose_device,
    choose_dtype,
    machine,
    machine_line,
    table,
)
from panacea_lab.bench.random_model import free_memory, load_variants, make_network, preferences, read_config

WAYS = ("different", "one", "base", "transformers")
TITLES = {
    "different": "this engine, every request its own preference",
    "one": "this engine, all one preference",
    "base": "this engine, bare base",
    "transformers": "transformers' continuous batching, bare base",
}


@dataclass(frozen=True)
class Mix:
    """Prompts and how many tokens each is answered with."""

    prompts: list[list[int]]
    answers: list[int]

    @classmethod
    def random(cls, count: int, prompt: tuple[int, int], answer: tuple[int, int], vocab_size: int, seed: int) -> "Mix":
        """The lengths are evenly spread between the bounds and the same for every seed; the tokens are not."""
        lengths = torch.Generator().manual_seed(0)
        tokens = torch.Generator().manual_seed(seed)

        def spread(least: int, most: int) -> list[int]:
            even = torch.linspace(least, most, count).round().int()
            shuffled: list[int] = even[torch.randperm(count, generator=lengths)].tolist()
            return shuffled

        prompts: list[list[int]] = [
            torch.randint(0, vocab_size, (length,), generator=tokens).tolist() for length in spread(*prompt)
        ]
        return cls(prompts, spread(*answer))

    def check(self, generated: Sequence[int]) -> None:
        """Raises `BenchError` unless `generated` counts exactly the tokens that were asked for."""
        if list(generated) != self.answers:
            short = sum(got != wanted for got, wanted in zip(generated, self.answers, strict=True))
            raise BenchError(f"{short} of {len(self.answers)} answers have not the number of tokens asked for")


AnswerMix = Callable[[Mix], Sequence[int]]
"""Answers a mix; returns how many tokens it generated for each prompt."""


@dataclass(frozen=True)
class ThroughputBench:
    """What to measure. Raises `ConfigError` when built from values that mean nothing."""

    model: str = "llama-3.1-8b"
    requests: int = 256
    prompt: tuple[int, int] = (32, 1024)
    answer: tuple[int, int] = (32, 256)
    rank: int = 11
    max_step_tokens: int = 2048
    device: Device = "auto"
    dtype: DType = "auto"
    rounds: int = 3
    seconds: float | None = None
    """What does not begin within this time is left out, and the result says so."""

    def __post_init__(self) -> None:
        check_sizes(
            requests=self.requests,
            prompt=self.prompt,
            answer=self.answer,
            rank=self.rank,
            max_step_tokens=self.max_step_tokens,
            rounds=self.rounds,
        )
        for name, (least, most) in (("prompt", self.prompt), ("answer", self.answer)):
            if least > most:
                raise ConfigError(f"{name} lengths must be given as least and most, not {least} and {most}")
        longest: int = read_config(self.model).get_text_config().max_position_embeddings
        if self.prompt[1] + self.answer[1] > longest:
            raise ConfigError(
                f"prompt and answer of {self.prompt[1] + self.answer[1]} tokens exceed {longest} positions"
            )

    def run(self) -> dict[str, Any]:
        """Measures; medians with all that they depend on."""
        budget = Budget(self.seconds)
        device = choose_device(self.device)
        dtype = choose_dtype(self.dtype, device)
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        reasons: dict[str, str] = {}
        details: dict[str, Any] = {}
        for measure in (self._steered, self._transformers, self._base):
            if budget.spent:
                reasons[measure.__name__.strip("_")] = "no time left"
                continue
            try:
                for way, taken in measure(device, dtype, budget, details):
                    seconds[way].append(taken)
            except torch.OutOfMemoryError as error:
                reasons[measure.__name__.strip("_")] = f"out of memory: {first_line(error)}"
            except Exception as error:
                if measure != self._transformers:
                    raise
                reasons["transformers"] = f"{type(error).__name__}: {first_line(error)}"[:200]
            free_memory(device)
        return self._result(device, dtype, seconds, reasons, details)

    def _mix(self, seed: int, requests: int) -> Mix:
        vocab_size: int = read_config(self.model).get_text_config().vocab_size
        return Mix.random(requests, self.prompt, self.answer, vocab_size, seed)

    def _rounds(
        self, ways: Mapping[str, AnswerMix], budget: Budget, device: torch.device
    ) -> Iterator[tuple[str, float]]:
        """Seconds of each way in each round, after one short round to warm up."""
        for number in tqdm(range(self.rounds + 1), desc=f"bench throughput: {', '.join(ways)}", leave=False):
            mix = self._mix(seed=number, requests=self.requests if number else max(1, self.requests // 8))
            # The later rounds are for the spread; the first must be.
            if number > 1 and budget.spent:
                return
            for way, answer in ways.items():
                start = time.perf_counter()
                generated = answer(mix)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                taken = time.perf_counter() - start
                mix.check(generated)
                if number:
                    yield way, taken

    def _engine(self, rank: int | None, device: torch.device, dtype: torch.dtype) -> Engine:
        config = EngineConfig(
            model=Path("random"),
            device="cuda" if device.type == "cuda" else "cpu",
            max_batch=self.requests,
            max_step_tokens=max(self.max_step_tokens, self.requests),
        )
        (model,) = load_variants(read_config(self.model), device, dtype, [rank], config)
        free_memory(device)
        return Engine.over(model, config)

    def _steered(
        self, device: torch.device, dtype: torch.dtype, budget: Budget, details: dict[str, Any]
    ) -> Iterator[tuple[str, float]]:
        engine = self._engine(self.rank, device, dtype)
        ways = {
            "different": answers_by(engine, preferences(self.requests, self.rank, different=True)),
            "one": answers_by(engine, preferences(self.requests, self.rank, different=False)),
        }
        yield from self._rounds(ways, budget, device)
        stats = engine.stats
        details |= {
            "most_requests_in_one_step": stats.max_step_requests,
            "most_preferences_in_one_step": stats.max_step_preferences,
            "preemptions": stats.preemptions,
        }

    def _base(
        self, device: torch.device, dtype: torch.dtype, budget: Budget, details: dict[str, Any]
    ) -> Iterator[tuple[str, float]]:
        engine = self._engine(None, device, dtype)
        yield from self._rounds({"base": answers_by(engine, [None] * self.requests)}, budget, device)

    def _transformers(
        self, device: torch.device, dtype: torch.dtype, budget: Budget, details: dict[str, Any]
    ) -> Iterator[tuple[str, float]]:
        network = make_network(read_config(self.model), device, dtype, attention="sdpa")
        with ContinuousBatching.start(network, self.requests, self.prompt[1], self.answer[1]) as competitor:
            details["transformers_settings"] = competitor.settings
            yield from self._rounds({"transformers": competitor.answer}, budget, device)

    def _result(
        self,
        device: torch.device,
        dtype: torch.dtype,
        seconds: Mapping[str, list[float]],
        reasons: Mapping[str, str],
        details: Mapping[str, Any],
    ) -> dict[str, Any]:
        mix = self._mix(1, self.requests)
        generated, prompted = sum(mix.answers), sum(len(prompt) for prompt in mix.prompts)
        ways: dict[str, dict[str, Any]] = {
            way: {
                "tokens_per_s": Samples.of([generated / taken for taken in times]).rounded(1),
                "seconds": Samples.of(times).rounded(3),
                "rounds": len(times),
            }
            for way, times in seconds.items()
            if times
        }
        speeds = {way: each["tokens_per_s"]["median"] for way, each in ways.items()}

        def ratio(over: str, under: str) -> float | None:
            return round(speeds[over] / speeds[under], 3) if over in speeds and under in speeds else None

        return {
            "bench": "throughput",
            "machine": machine(device),
            "model": self.model,
            "dtype": str(dtype).removeprefix("torch."),
            "requests": self.requests,
            "prompt_tokens": prompted,
            "generated_tokens": generated,
            "prompt_lengths": list(self.prompt),
            "answer_lengths": list(self.answer),
            "rank": self.rank,
            "max_step_tokens": max(self.max_step_tokens, self.requests),
            "rounds": self.rounds,
            "ways": ways,
            "reasons": dict(reasons),
            "different_over_transformers": ratio("different", "transformers"),
            "different_over_one": ratio("different", "one"),
            "different_over_base": ratio("different", "base"),
            **details,
        }


def answers_by(engine: Engine, wanted: Sequence[Preference | None]) -> AnswerMix:
    def answer(mix: Mix) -> list[int]:
        salt = secrets.token_hex()  # of its own, so that nothing is found in the prefix cache
        requests = [
            Request(prompt, preference, SamplingParams(max_tokens=count, temperature=0, ignore_eos=True), salt)
            for prompt, preference, count in zip(mix.prompts, wanted, mix.answers, strict=False)
        ]
        completions = engine.generate(requests)
        return [len(completion.token_ids) for completion in completions]

    return answer


def lines(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the table, for people."""
    header = ["way", "tokens/s", "spread", "seconds", "relative"]
    first: float = result["ways"]["different"]["tokens_per_s"]["median"] if "different" in result["ways"] else 0.0
    rows: list[list[str]] = []
    for way in WAYS:
        if way not in result["ways"]:
            rows.append([TITLES[way], "-", "-", "-", "-"])
            continue
        speed, taken = result["ways"][way]["tokens_per_s"], result["ways"][way]["seconds"]
        spread = f"{speed['low']:.0f}-{speed['high']:.0f}"
        relative = f"{speed['median'] / first:.2f}" if first else "-"
        rows.append([TITLES[way], f"{speed['median']:.0f}", spread, f"{taken['median']:.2f}", relative])
    return header, rows


def report(result: dict[str, Any]) -> str:
    """A table for people."""
    parts = [
        f"bench throughput: {result['model']} shapes, {result['dtype']}, {machine_line(result['machine'])}",
        f"{result['requests']} requests; {result['prompt_tokens']} prompt tokens ({result['prompt_lengths'][0]} to "
        f"{result['prompt_lengths'][1]} each), {result['generated_tokens']} generated "
        f"({result['answer_lengths'][0]} to {result['answer_lengths'][1]} each); rank {result['rank']}; up to "
        f"{result['rounds']} rounds",
        "",
        table(*lines(result)),
        "",
    ]
    for name, key in (
        ("different / transformers", "different_over_transformers"),
        ("different / one preference", "different_over_one"),
        ("different / base", "different_over_base"),
    ):
        parts.append(f"{name}: {result[key] if result[key] is not None else 'not measured'}")
    parts += [f"{way} was not measured: {reason}" for way, reason in result["reasons"].items()]
    if "transformers_settings" in result:
        parts.append(f"transformers chose: {result['transformers_settings']}")
    return "\n".join(parts)
