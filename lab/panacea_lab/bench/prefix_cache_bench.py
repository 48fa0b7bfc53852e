"""`panacea bench prefix`: the time to a first token behind a long system prompt, cold and warm.

For the bare base and for each of some preferences, in turn:

    cold   nobody has asked behind this system prompt under this preference yet; others may have, under theirs
    warm   somebody has, with another question

and, once each round, `off`: the same by an engine without a prefix cache. The model has random weights, and as many
positions as it takes. Every answer's number of cached tokens is checked, so no measurement is of something else.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from panacea.config import Device, DType, EngineConfig
from panacea.demo_model import DEMO_BASE
from panacea.engine.engine import Engine
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.model.loader import LoadedModel
from panacea.preference import Preference
from panacea_lab.bench.measurement import (
    BenchError,
    Samples,
    check_sizes,
    choose_device,
    choose_dtype,
    machine,
    machine_line,
    table,
)
from panacea_lab.bench.random_model import load_variants, preferences, read_config

RANK = 11
DEMO = str(DEMO_BASE)


@dataclass(frozen=True)
class PrefixBench:
    """What to measure. Raises `ConfigError` when built from values that mean nothing."""

    model: str = DEMO
    system: int = 1000
    """Tokens of the system prompt that all requests begin with."""
    question: int = 20
    """Tokens behind it, different ones for each request."""
    preferences: int = 3
    """How many, besides the bare base."""
    device: Device = "auto"
    dtype: DType = "auto"
    rounds: int = 5
    threads: int | None = None

    def __post_init__(self) -> None:
        check_sizes(system=self.system, question=self.question, preferences=self.preferences, rounds=self.rounds)

    def run(self) -> dict[str, Any]:
        """Measures; medians of milliseconds with all that they depend on."""
        model, config = self._model()
        on, off = Engine.over(model, config), Engine.over(model, replace(config, prefix_cache=False))
        asker = _Asker(self.system, self.question, model.vocab_size)
        kinds: list[tuple[str, Preference | None]] = [("base", None)]
        kinds += [(_shown(each), each) for each in preferences(self.preferences, RANK, different=True)]
        # Whole blocks are cached.
        expected = self.system // config.block_size * config.block_size
        times: dict[str, dict[str, list[float]]] = {name: {"cold": [], "warm": [], "off": []} for name, _ in kinds}
        for number in tqdm(range(self.rounds + 1), desc="bench prefix", unit="round", leave=False):
            salt = secrets.token_hex()  # nothing that an earlier round left is found
            for name, preference in kinds:
                for way, engine, cached in (("cold", on, 0), ("warm", on, expected), ("off", off, 0)):
                    taken = asker.time_to_first_token_s(engine, preference, salt, cached)
                    if number:  # the first round warms up
                        times[name][way].append(1000 * taken)
        return {
            "bench": "prefix",
            "machine": machine(model.device),
            "model": Path(self.model).parent.name if self.model == DEMO else self.model,
            "parameters": on.info.parameters,
            "dtype": on.info.dtype,
            "threads": torch.get_num_threads(),
            "rank": RANK,
            "system_tokens": self.system,
            "question_tokens": self.question,
            "cached_tokens": expected,
            "max_step_tokens": config.max_step_tokens,
            "rounds": self.rounds,
            "ms": {
                name: {way: Samples.of(taken).rounded() for way, taken in ways.items()} for name, ways in times.items()
            },
        }

    def _model(self) -> tuple[LoadedModel, EngineConfig]:
        device = choose_device(self.device)
        shapes = read_config(self.model)
        text: Any = shapes.get_text_config()
        text.max_position_embeddings = max(text.max_position_embeddings, self.system + self.question + 1)
        config = EngineConfig(
            model=Path("random"), device="cuda" if device.type == "cuda" else "cpu", max_batch=4, threads=self.threads
        )
        # Room for a round of all preferences, and not for the whole of the device: two engines share it.
        blocks = 2 * (self.preferences + 2) * -(-text.max_position_embeddings // config.block_size)
        (model,) = load_variants(shapes, device, choose_dtype(self.dtype, device), [RANK], config)
        return model, replace(config, num_blocks=blocks)


class _Asker:
    """Asks questions behind one system prompt."""

    def __init__(self, system: int, question: int, vocab_size: int) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self._vocab_size = vocab_size
        self._question = question
        self._system = self._draw(system)

    def _draw(self, count: int) -> list[int]:
        drawn: list[int] = torch.randint(0, self._vocab_size, (count,), generator=self._generator).tolist()
        return drawn

    def time_to_first_token_s(
        self, engine: Engine, preference: Preference | None, salt: str, expected_cached: int
    ) -> float:
        """Raises `BenchError` unless exactly this number of tokens was cached."""
        prompt = [*self._system, *self._draw(self._question)]
        start = time.perf_counter()
        params = SamplingParams(max_tokens=2, temperature=0, ignore_eos=True)
        engine.add("asked", Request(prompt, preference, params, salt))
        tokens = engine.step()
        while not tokens:
            tokens = engine.step()
        taken = time.perf_counter() - start
        engine.abort("asked")
        while engine.has_work:  # a step may be under way
            engine.step()
        if tokens[0].cached_tokens != expected_cached:
            raise BenchError(f"{tokens[0].cached_tokens} tokens were cached where {expected_cached} should be")
        return taken


def _shown(preference: Preference) -> str:
    return " ".join(f"{weight:.2f}" for weight in preference)


def lines(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the table, for people."""
    header = ["preference", "off ms", "cold ms", "warm ms", "warm spread", "cold / warm"]
    rows: list[list[str]] = []
    for name, ways in result["ms"].items():
        cold, warm, off = (ways[way]["median"] for way in ("cold", "warm", "off"))
        spread = f"{ways['warm']['low']:.1f}-{ways['warm']['high']:.1f}"
        rows.append([name, f"{off:.1f}", f"{cold:.1f}", f"{warm:.1f}", spread, f"{cold / warm:.1f}"])
    return header, rows


def report(result: dict[str, Any]) -> str:
    """A table for people."""
    head: Sequence[str] = (
        f"bench prefix: {result['model']} shapes, {result['parameters'] / 1e6:.1f} M parameters, {result['dtype']}, "
        f"{result['threads']} thread(s), {machine_line(result['machine'])}",
        f"time to the first token behind {result['system_tokens']} + {result['question_tokens']} tokens, of which "
        f"{result['cached_tokens']} are cached when warm; median of {result['rounds']} rounds",
        "",
    )
    return "\n".join((*head, table(*lines(result))))
