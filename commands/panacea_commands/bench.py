"""`panacea bench`: its options, and what it prints."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from panacea.bounds import Bounded, Bounds, Count
from panacea.config import Device, DType
from panacea.errors import ConfigError
from panacea_commands.option_sources import FIELDS, new_app
from panacea_commands.option_values import check_writable, read_first_key, read_numbers

bench_app = new_app("bench", help="Measure speed, memory and stability on this machine.")

_Shapes = Annotated[str, Parameter(metavar="NAME|CONFIG")]
_JsonFile = Annotated[Path | None, Parameter(metavar="FILE")]


@dataclass(frozen=True)
class SteeringOptions(Bounded):
    """What `panacea bench steering` measures."""

    adapter: str | None = None
    """Adapter: a folder or a hub id. Default: the demo."""
    requests: Count = 16
    """Requests, each with its own preference."""
    tokens: Count = 64
    """Tokens that each request generates."""
    rounds: Count = 5
    """Measured rounds, after one to warm up. Medians are printed."""
    threads: Count = 1
    """CPU threads, the same for all methods."""


@bench_app.command
def steering(*, options: Annotated[SteeringOptions, FIELDS] = SteeringOptions()) -> None:
    """Compare one batch of different preferences with merging the weights for each request.

    Prints a table, and the numbers as JSON in the last line.
    """
    from panacea.model.checkpoint import Checkpoint
    from panacea_lab.bench.steering import SteeringBench, report

    found = Checkpoint.find(adapter=options.adapter)
    assert found.adapter is not None
    bench = SteeringBench(found.base, found.adapter, options.requests, options.tokens, options.rounds, options.threads)
    print(report(bench.run()))


@dataclass(frozen=True)
class KernelsOptions(Bounded):
    """What `panacea bench kernels` measures."""

    model: _Shapes = "llama-3.1-8b"
    """llama-3.1-8b, qwen2.5-0.5b, tiny, or a config.json."""
    rows: str = "1,8,32,64,128,256"
    """Rows of a step: one per decoding request."""
    ranks: str = "3,11,16,64"
    """Ranks of the adapter."""
    device: Device = "auto"
    """Where it runs. auto: CUDA if there is a GPU, else the CPU."""
    dtype: DType = "auto"
    """Number format. auto: 16 bits on CUDA, float32 on a CPU."""
    rounds: Count = 20
    """Measured rounds. Medians are printed."""
    sweep: bool = False
    """Measure other tile sizes of the fused kernel instead."""
    json: _JsonFile = None
    """Write all numbers to this file too."""


@bench_app.command
def kernels(*, options: Annotated[KernelsOptions, FIELDS] = KernelsOptions()) -> None:
    """Time one layer's projections: the base alone, and steered by our kernels, by torch, and by two generic kernels.

    Times are in microseconds. Weights are random: nothing is downloaded. A CPU only shows that it runs; our kernels
    need TRITON_INTERPRET=1 there.
    """
    from panacea_lab.bench import projection_kernels

    check_writable("--json", options.json)
    rows, ranks = read_numbers("--rows", options.rows), read_numbers("--ranks", options.ranks)
    bench = projection_kernels.KernelsBench(options.model, rows, ranks, options.device, options.dtype, options.rounds)
    if not options.sweep:
        _print(bench.run(), projection_kernels.report, options.json)
        return
    try:
        from panacea_lab.bench import tile_sweep
    except ImportError as error:
        raise ConfigError(f"--sweep needs Triton, which cannot be imported ({error})") from None
    _print(tile_sweep.KernelsSweep(bench).run(), tile_sweep.report, options.json)


@dataclass(frozen=True)
class DecodeOptions(Bounded):
    """What `panacea bench decode` measures."""

    model: _Shapes = "llama-3.1-8b"
    """llama-3.1-8b, qwen2.5-0.5b, tiny, or a config.json."""
    batches: str = "1,8,32,128,256"
    """Requests in a step."""
    context: Count = 1024
    """Tokens that each request has in the KV cache."""
    ranks: str = "11,64"
    """Ranks of the adapters."""
    device: Device = "auto"
    """Where it runs. auto: CUDA if there is a GPU, else the CPU."""
    dtype: DType = "auto"
    """Number format. auto: 16 bits on CUDA, float32 on a CPU."""
    rounds: Count = 12
    """Measured rounds. Medians are printed."""
    compile: Annotated[bool, Parameter(negative="--no-compile")] = True
    """Also measure transformers' own layers, compiled, as a competitor."""
    json: _JsonFile = None
    """Write all numbers to this file too."""


@bench_app.command
def decode(*, options: Annotated[DecodeOptions, FIELDS] = DecodeOptions()) -> None:
    """Time a decode step: without adapter, with different preferences, with one preference, and in transformers.

    Times are in milliseconds. Weights are random: nothing is downloaded. A CPU only shows that it runs: choose
    --model tiny --context 100 there.
    """
    from panacea_lab.bench import decode as measured

    check_writable("--json", options.json)
    bench = measured.DecodeBench(
        options.model,
        read_numbers("--batches", options.batches),
        options.context,
        read_numbers("--ranks", options.ranks),
        options.device,
        options.dtype,
        options.rounds,
        "inductor" if options.compile else None,
    )
    _print(bench.run(), measured.report, options.json)


@dataclass(frozen=True)
class ThroughputOptions(Bounded):
    """What `panacea bench throughput` measures."""

    model: _Shapes = "llama-3.1-8b"
    """llama-3.1-8b, qwen2.5-0.5b, tiny, or a config.json."""
    requests: Count = 256
    """Concurrent requests, each with its own preference."""
    prompt: Annotated[str, Parameter(metavar="LEAST,MOST")] = "32,1024"
    """Tokens of a prompt."""
    answer: Annotated[str, Parameter(metavar="LEAST,MOST")] = "32,256"
    """Tokens of an answer."""
    rank: Count = 11
    """Rank of the adapter."""
    device: Device = "auto"
    """Where it runs. auto: CUDA if there is a GPU, else the CPU."""
    dtype: DType = "auto"
    """Number format. auto: 16 bits on CUDA, float32 on a CPU."""
    rounds: Count = 3
    """Measured rounds, after a short one to warm up. Medians are printed."""
    json: _JsonFile = None
    """Write all numbers to this file too."""


@bench_app.command
def throughput(*, options: Annotated[ThroughputOptions, FIELDS] = ThroughputOptions()) -> None:
    """Measure tokens per second for a mix of requests, beside transformers' continuous batching of the bare base.

    Weights are random: nothing is downloaded. A CPU only shows that it runs: choose --model tiny --prompt 4,100 there.
    """
    from panacea_lab.bench import throughput as measured

    check_writable("--json", options.json)
    prompts = read_numbers("--prompt", options.prompt, exactly=2)
    answers = read_numbers("--answer", options.answer, exactly=2)
    bench = measured.ThroughputBench(
        model=options.model,
        requests=options.requests,
        prompt=(prompts[0], prompts[1]),
        answer=(answers[0], answers[1]),
        rank=options.rank,
        device=options.device,
        dtype=options.dtype,
        rounds=options.rounds,
    )
    _print(bench.run(), measured.report, options.json)


@dataclass(frozen=True)
class PrefixOptions(Bounded):
    """What `panacea bench prefix` measures."""

    model: Annotated[str | None, Parameter(metavar="NAME|CONFIG")] = None
    """llama-3.1-8b, qwen2.5-0.5b, tiny, or a config.json. Default: the demo's shapes."""
    system: Count = 1000
    """Tokens of the system prompt that all requests share."""
    question: Count = 20
    """Tokens after the system prompt, different for each request."""
    preferences: Count = 3
    """Preferences, besides the bare base."""
    device: Device = "auto"
    """Where it runs. auto: CUDA if there is a GPU, else the CPU."""
    dtype: DType = "auto"
    """Number format. auto: 16 bits on CUDA, float32 on a CPU."""
    rounds: Count = 5
    """Measured rounds, after one to warm up. Medians are printed."""
    threads: Count | None = None
    """CPU threads. Default: the server's choice."""
    json: _JsonFile = None
    """Write all numbers to this file too."""


@bench_app.command
def prefix(*, options: Annotated[PrefixOptions, FIELDS] = PrefixOptions()) -> None:
    """Time the first token after a shared system prompt, with a cold and a warm prefix cache, for each preference.

    Weights are random: nothing is downloaded.
    """
    from panacea_lab.bench import prefix_cache_bench

    check_writable("--json", options.json)
    bench = prefix_cache_bench.PrefixBench(
        model=options.model or prefix_cache_bench.DEMO,
        system=options.system,
        question=options.question,
        preferences=options.preferences,
        device=options.device,
        dtype=options.dtype,
        rounds=options.rounds,
        threads=options.threads,
    )
    _print(bench.run(), prefix_cache_bench.report, options.json)


@dataclass(frozen=True)
class SoakOptions(Bounded):
    """What `panacea bench soak` does."""

    minutes: Annotated[float, Bounds(least=0.05)] = 20
    """Duration. The first fifth warms up."""
    url: str | None = None
    """A running server, like http://127.0.0.1:8000. Default: a server that the command starts."""
    pid: Count | None = None
    """Process id of the server at --url. Without it only the server's /metrics are read."""
    api_key_file: Path | None = None
    """File with keys. The first one is sent to --url."""
    clients: Count = 8
    """Clients, each with one request at a time."""
    seed: int = 0
    """The same seed gives the same requests."""
    prompt_chars: Annotated[int, Bounds(least=40)] = 1200
    """Most characters of a prompt. It must fit into the context."""
    memory_limit: Annotated[float, Bounds(least=0)] = 20.0
    """Largest growth of a process's memory, in MiB an hour."""
    json: _JsonFile = None
    """Write all numbers to this file too."""


@bench_app.command
def soak(*, options: Annotated[SoakOptions, FIELDS] = SoakOptions()) -> int:
    """Put a server under mixed load for a long time, and check that it stays as it was.

    The checks cover memory, file descriptors, tasks, blocks, slots and latency. The command serves the embedded demo
    model with a small cache, so that requests compete for blocks, unless --url names a server. If a check fails, it
    prints the reasons and ends with exit code 1.
    """
    from panacea_lab.bench.soak import soak_bench
    from panacea_lab.bench.soak.soak_limits import SoakLimits

    check_writable("--json", options.json)
    if options.url is None and (options.pid is not None or options.api_key_file is not None):
        raise ConfigError("--pid and --api-key-file belong to a server that runs already: give its --url too")
    own = ("--port", "0", "--max-batch", "16", "--kv-cache-gib", "0.012")
    bench = soak_bench.SoakBench(
        minutes=options.minutes,
        command=() if options.url else (sys.executable, "-m", "panacea_commands", "serve", *own),
        url=options.url or "",
        pid=options.pid,
        key=read_first_key(options.api_key_file),
        clients=options.clients,
        seed=options.seed,
        prompt_chars=options.prompt_chars,
        limits=SoakLimits(memory_mib_per_hour=options.memory_limit),
    )
    result = bench.run()
    _print(result, soak_bench.report, options.json)
    return 1 if result["reasons"] else 0


def _print(result: dict[str, Any], report: Callable[[dict[str, Any]], str], json_file: Path | None) -> None:
    print(report(result))
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
