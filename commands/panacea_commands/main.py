"""The `panacea` command: the only place that wires everything together."""

import asyncio
import json
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from panacea.config import (
    Device,
    DType,
    EngineConfig,
    Limits,
    LogConfig,
    LogFormat,
    LogLevel,
    ServerConfig,
    Supervision,
)
from panacea.demo_model import DEMO_ADAPTER, DEMO_BASE
from panacea.errors import ConfigError, EngineDeadError, PanaceaError
from panacea.logs import configure_logs, logs_json
from panacea.preference import PreferenceSpace
from panacea_commands.convert import convert_app, export_adapter, inspect_adapter
from panacea_commands.evaluate import eval_app
from panacea_commands.option_values import (
    allowed_hosts,
    check_writable,
    cors_origins,
    is_open,
    make_room_for,
    read_api_keys,
    read_config_file,
    with_presets,
)
from panacea_commands.train import train_app

DEFAULTS = EngineConfig(model=DEMO_BASE)
LIMITS = Limits()

app = typer.Typer(
    name="panacea",
    help="Serves a language model whose alignment each request chooses for itself.",
    epilog="Start with: panacea serve",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
bench_app = typer.Typer(help="Measure on this machine.", no_args_is_help=True)
app.add_typer(train_app, name="train")
app.add_typer(eval_app, name="eval")
app.add_typer(bench_app, name="bench")
app.add_typer(convert_app, name="convert")
app.command("inspect")(inspect_adapter)
app.command("export")(export_adapter)


def main() -> None:
    """The entry point. What a user got wrong ends with one line and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        code = 130
    except EngineDeadError as error:
        code = _complain(str(error), 1)
    except PanaceaError as error:
        code = _complain(str(error), 2)
    except typer.TyperException as error:
        code = _complain(error.format_message(), 2)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str, code: int) -> int:
    line = " ".join(message.split())
    if line and logs_json():
        logger.critical(line)
    elif line:  # a bare `panacea` has printed its help and has nothing to complain about
        typer.echo(f"panacea: error: {line}", err=True)
    return code


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"panacea {version('panacea-server')}")
        raise typer.Exit


@app.callback()
def _panacea(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Makes the file's values the defaults, which the environment and then flags override."""
    if path is not None:
        known = {parameter.name for parameter in context.command.params if parameter.name} - {"config"}
        context.default_map = dict(read_config_file(path, known))
    return path


logger = logging.getLogger("panacea")

_MODEL = "What to serve"
_HTTP = "HTTP"
_ENGINE = "Engine"
_LIMITS = "Limits"


@app.command(
    epilog="Every option can also come from the environment (PANACEA_MAX_BATCH=8) or from a TOML file (max_batch = 8). "
    "A flag wins over the environment, the environment over the file, and the file over the default."
)
def serve(
    model: Annotated[
        str | None,
        typer.Option(
            envvar="PANACEA_MODEL",
            rich_help_panel=_MODEL,
            help="Base model: a folder or a hub id. Default: the adapter's own base.",
        ),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            envvar="PANACEA_ADAPTER",
            rich_help_panel=_MODEL,
            help="Panacea adapter: a folder or a hub id. Without it and without --model: the embedded demo.",
        ),
    ] = None,
    served_model_name: Annotated[
        str | None,
        typer.Option(
            envvar="PANACEA_SERVED_MODEL_NAME", rich_help_panel=_MODEL, help="The model id that clients ask for."
        ),
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            envvar="PANACEA_PRESET",
            rich_help_panel=_MODEL,
            metavar="NAME=w,w,w",
            help="A named preference; clients reach it as the model id <name>:NAME. May be repeated.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(envvar="PANACEA_HOST", rich_help_panel=_HTTP, help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="PANACEA_PORT", rich_help_panel=_HTTP, min=0, max=65535, help="0 takes a free one.")
    ] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            envvar="PANACEA_API_KEY_FILE",
            rich_help_panel=_HTTP,
            help="File with one accepted bearer key per line; # begins a comment. Without it the server is open.",
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            envvar="PANACEA_ALLOWED_HOST",
            rich_help_panel=_HTTP,
            help="Host header to answer; * for all. May be repeated. Default: loopback names on a loopback address.",
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            envvar="PANACEA_CORS_ORIGIN",
            rich_help_panel=_HTTP,
            metavar="ORIGIN",
            help="Let pages of this origin (https://app.example) ask from a browser; * for all. May be repeated.",
        ),
    ] = None,
    dtype: Annotated[
        DType,
        typer.Option(envvar="PANACEA_DTYPE", rich_help_panel=_ENGINE, help="auto: 16 bits on CUDA, float32 on a CPU."),
    ] = "auto",
    device: Annotated[Device, typer.Option(envvar="PANACEA_DEVICE", rich_help_panel=_ENGINE)] = "auto",
    max_batch: Annotated[
        int,
        typer.Option(envvar="PANACEA_MAX_BATCH", rich_help_panel=_ENGINE, min=1, help="Most requests in one step."),
    ] = DEFAULTS.max_batch,
    max_step_tokens: Annotated[
        int,
        typer.Option(
            envvar="PANACEA_MAX_STEP_TOKENS",
            rich_help_panel=_ENGINE,
            min=1,
            help="Most tokens in one step; longer prompts are prefilled in chunks.",
        ),
    ] = DEFAULTS.max_step_tokens,
    max_context: Annotated[
        int | None,
        typer.Option(
            envvar="PANACEA_MAX_CONTEXT",
            rich_help_panel=_ENGINE,
            min=2,
            help="Cap on prompt and answer together, in tokens. Default: the model's own.",
        ),
    ] = None,
    kv_cache_gib: Annotated[
        float | None,
        typer.Option(
            envvar="PANACEA_KV_CACHE_GIB",
            rich_help_panel=_ENGINE,
            min=0.001,
            help="Most memory for the KV cache. Default: 1 on a CPU; on a GPU what --gpu-memory-share leaves.",
        ),
    ] = None,
    gpu_memory_share: Annotated[
        float,
        typer.Option(
            envvar="PANACEA_GPU_MEMORY_SHARE",
            rich_help_panel=_ENGINE,
            min=0.01,
            max=1,
            help="How much of the GPU's memory weights, activations and KV cache may take together.",
        ),
    ] = DEFAULTS.gpu_memory_share,
    prefix_cache: Annotated[
        bool,
        typer.Option(
            envvar="PANACEA_PREFIX_CACHE",
            rich_help_panel=_ENGINE,
            help="Keep what was computed, for requests that begin alike and have the same preference.",
        ),
    ] = DEFAULTS.prefix_cache,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            envvar="PANACEA_DETERMINISTIC",
            rich_help_panel=_ENGINE,
            help="The same log probabilities to the last bit, whoever shares the batch. Slower. Llama, Mistral, Qwen2 "
            "and Qwen3 only.",
        ),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            envvar="PANACEA_THREADS",
            rich_help_panel=_ENGINE,
            min=1,
            help="CPU threads of the model. Default: one for tiny models, else all cores.",
        ),
    ] = None,
    watchdog_s: Annotated[
        float,
        typer.Option(
            envvar="PANACEA_WATCHDOG_S",
            rich_help_panel=_ENGINE,
            min=1,
            help="An engine that was silent for so many seconds is ended and started again. It speaks twice a second.",
        ),
    ] = Supervision.watchdog_s,
    step_limit_s: Annotated[
        float,
        typer.Option(
            envvar="PANACEA_STEP_LIMIT_S",
            rich_help_panel=_ENGINE,
            min=1,
            help="So is one whose step takes longer: at least as long as --max-step-tokens take in a prefill.",
        ),
    ] = Supervision.step_limit_s,
    max_queued_requests: Annotated[
        int,
        typer.Option(
            envvar="PANACEA_MAX_QUEUED_REQUESTS",
            rich_help_panel=_LIMITS,
            min=0,
            help="Most answers that wait besides a full batch; beyond it 429.",
        ),
    ] = LIMITS.max_queued_requests,
    max_queued_tokens: Annotated[
        int,
        typer.Option(
            envvar="PANACEA_MAX_QUEUED_TOKENS",
            rich_help_panel=_LIMITS,
            min=1,
            help="Most prompt tokens that wait; beyond it 429.",
        ),
    ] = LIMITS.max_queued_tokens,
    max_queued_body_mib: Annotated[
        float,
        typer.Option(
            envvar="PANACEA_MAX_QUEUED_BODY_MIB",
            rich_help_panel=_LIMITS,
            min=0.001,
            help="Most MiB of requests that are not answered yet; beyond it 429.",
        ),
    ] = LIMITS.max_queued_body_bytes / 2**20,
    max_body_mib: Annotated[
        float,
        typer.Option(
            envvar="PANACEA_MAX_BODY_MIB",
            rich_help_panel=_LIMITS,
            min=0.001,
            help="Largest body of a request in MiB; beyond it 413.",
        ),
    ] = LIMITS.max_body_bytes / 2**20,
    max_prompt_tokens: Annotated[
        int | None,
        typer.Option(
            envvar="PANACEA_MAX_PROMPT_TOKENS",
            rich_help_panel=_LIMITS,
            min=1,
            help="Longest prompt; beyond it 400. Default: what the context holds.",
        ),
    ] = None,
    max_answer_tokens: Annotated[
        int | None,
        typer.Option(
            envvar="PANACEA_MAX_ANSWER_TOKENS",
            rich_help_panel=_LIMITS,
            min=1,
            help="Most that max_tokens may ask for; beyond it 400. Default: what the context leaves.",
        ),
    ] = None,
    max_connections: Annotated[
        int,
        typer.Option(
            envvar="PANACEA_MAX_CONNECTIONS",
            rich_help_panel=_LIMITS,
            min=1,
            help="Most open connections; beyond it 503.",
        ),
    ] = LIMITS.max_connections,
    head_timeout_s: Annotated[
        float,
        typer.Option(
            envvar="PANACEA_HEAD_TIMEOUT_S",
            rich_help_panel=_LIMITS,
            help="Seconds for a request's headers; then 408.",
        ),
    ] = LIMITS.head_timeout_s,
    body_timeout_s: Annotated[
        float,
        typer.Option(
            envvar="PANACEA_BODY_TIMEOUT_S",
            rich_help_panel=_LIMITS,
            help="Seconds for a request's body; then 408.",
        ),
    ] = LIMITS.body_timeout_s,
    idle_timeout_s: Annotated[
        float,
        typer.Option(
            envvar="PANACEA_IDLE_TIMEOUT_S",
            rich_help_panel=_LIMITS,
            help="Seconds that a connection stays open between requests; more than a balancer's.",
        ),
    ] = LIMITS.idle_timeout_s,
    queue_timeout_s: Annotated[
        float,
        typer.Option(
            envvar="PANACEA_QUEUE_TIMEOUT_S",
            rich_help_panel=_LIMITS,
            help="Seconds until a request's first step; then 503.",
        ),
    ] = 60.0,
    first_token_timeout_s: Annotated[
        float,
        typer.Option(
            envvar="PANACEA_FIRST_TOKEN_TIMEOUT_S",
            rich_help_panel=_LIMITS,
            help="Seconds until a request's first token; then 504.",
        ),
    ] = LIMITS.first_token_timeout_s,
    request_timeout_s: Annotated[
        float,
        typer.Option(
            envvar="PANACEA_REQUEST_TIMEOUT_S",
            rich_help_panel=_LIMITS,
            help="Seconds until a request's last token; then 504.",
        ),
    ] = LIMITS.request_timeout_s,
    slow_reader_timeout_s: Annotated[
        float,
        typer.Option(
            envvar="PANACEA_SLOW_READER_TIMEOUT_S",
            rich_help_panel=_LIMITS,
            help="Seconds in which a client may read nothing of what is there; then it is dropped.",
        ),
    ] = LIMITS.slow_reader_timeout_s,
    max_unread_tokens: Annotated[
        int,
        typer.Option(
            envvar="PANACEA_MAX_UNREAD_TOKENS",
            rich_help_panel=_LIMITS,
            min=1,
            help="Tokens that a client may be behind in a stream; then it is dropped.",
        ),
    ] = LIMITS.max_unread_tokens,
    drain_timeout_s: Annotated[
        float,
        typer.Option(
            envvar="PANACEA_DRAIN_TIMEOUT_S",
            rich_help_panel=_LIMITS,
            help="Seconds for open requests after SIGTERM; then they are cut off.",
        ),
    ] = LIMITS.drain_timeout_s,
    log_level: Annotated[
        LogLevel,
        typer.Option(
            envvar="PANACEA_LOG_LEVEL",
            rich_help_panel=_HTTP,
            help="info logs each request; debug also probes and files.",
        ),
    ] = LogConfig.level,
    log_format: Annotated[
        LogFormat,
        typer.Option(
            envvar="PANACEA_LOG_FORMAT",
            rich_help_panel=_HTTP,
            help="text for people, json for programs: one line each.",
        ),
    ] = LogConfig.format,
    config: Annotated[  # its callback does the work
        Path | None,
        typer.Option(
            envvar="PANACEA_CONFIG", callback=_read_config, is_eager=True, help="TOML file with any of these options."
        ),
    ] = None,
) -> None:
    """Serve a model over HTTP, with the OpenAI API and a preference per request.

    Without options this serves the embedded demo model on a CPU:

        panacea serve

    An adapter brings its base model along; a base model alone is served without preferences:

        panacea serve --adapter ./my-adapter --preset brief=0.1,0.1,0.8
    """
    logs = LogConfig(log_level, log_format)
    if log_format == "json":
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # read when the hub's package and transformers are imported
        configure_logs(logs)  # for what goes wrong from here on
    if max_step_tokens < max_batch:
        raise ConfigError(f"--max-step-tokens must be at least --max-batch ({max_batch}): a token for each request")
    if kv_cache_gib is not None and not kv_cache_gib < math.inf:
        raise ConfigError("--kv-cache-gib must be a finite number")
    make_room_for(max_connections)
    keys = read_api_keys(api_key_file)
    base_folder, adapter_folder, space = _checkpoints(model, adapter)
    space = with_presets(space, preset or ())
    name = served_model_name or _default_name(base_folder, adapter_folder)
    engine_config = EngineConfig(
        model=base_folder,
        adapter=adapter_folder,
        dtype=dtype,
        device=device,
        max_batch=max_batch,
        max_step_tokens=max_step_tokens,
        kv_cache_bytes=None if kv_cache_gib is None else round(kv_cache_gib * 2**30),
        gpu_memory_share=gpu_memory_share,
        prefix_cache=prefix_cache,
        deterministic=deterministic,
        max_context=max_context,
        threads=threads,
        logs=logs,
        queue_timeout_s=queue_timeout_s,
    )
    limits = Limits(
        max_queued_requests=max_queued_requests,
        max_queued_tokens=max_queued_tokens,
        max_queued_body_bytes=_bytes("max-queued-body-mib", max_queued_body_mib),
        max_body_bytes=_bytes("max-body-mib", max_body_mib),
        max_prompt_tokens=max_prompt_tokens,
        max_answer_tokens=max_answer_tokens,
        max_connections=max_connections,
        head_timeout_s=head_timeout_s,
        body_timeout_s=body_timeout_s,
        idle_timeout_s=idle_timeout_s,
        first_token_timeout_s=first_token_timeout_s,
        request_timeout_s=request_timeout_s,
        slow_reader_timeout_s=slow_reader_timeout_s,
        max_unread_tokens=max_unread_tokens,
        drain_timeout_s=drain_timeout_s,
    )
    server_config = ServerConfig(
        model_name=name,
        host=host,
        port=port,
        api_keys=keys,
        allowed_hosts=allowed_hosts(host, allowed_host or ()),
        cors_origins=cors_origins(cors_origin or ()),
        limits=limits,
    )
    supervision = Supervision(watchdog_s=watchdog_s, step_limit_s=step_limit_s)
    asyncio.run(_serve(server_config, engine_config, supervision, space))


def _bytes(option: str, mib: float) -> int:
    if not mib < math.inf:
        raise ConfigError(f"--{option} must be a finite number")
    return round(mib * 2**20)


def _checkpoints(model: str | None, adapter: str | None) -> tuple[Path, Path | None, PreferenceSpace | None]:
    """Local folders of base and adapter, and the adapter's preference space."""
    from panacea.model.adapter_config import AdapterConfig
    from panacea.model.hub import local_folder

    if model is None and adapter is None:
        adapter = str(DEMO_ADAPTER)
    if adapter is None:
        assert model is not None
        return local_folder(model), None, None
    adapter_folder = local_folder(adapter)
    config = AdapterConfig.read(adapter_folder)
    base = model or config.base_of(adapter_folder)
    return local_folder(str(base)), adapter_folder, config.space


def _default_name(base: Path, adapter: Path | None) -> str:
    if adapter == DEMO_ADAPTER:
        return "panacea-demo"
    return (adapter or base).resolve().name


async def _serve(
    config: ServerConfig, engine_config: EngineConfig, supervision: Supervision, space: PreferenceSpace | None
) -> None:
    from panacea.api.app import create_app, new_admission
    from panacea.api.connections.connection import HttpConfig
    from panacea.api.connections.http_server import FAREWELL_S, HttpServer
    from panacea.engine.supervisor import Supervisor
    from panacea.text import load_model_text

    with _bind(config) as listener:
        configure_logs(engine_config.logs)
        text = load_model_text(engine_config.model)
        loading = asyncio.create_task(Supervisor.start(engine_config, supervision))
        server: HttpServer | None = None

        def stop() -> None:
            if server is None:
                if not loading.cancel():  # it has just loaded: there is a server to stop in a moment
                    asyncio.get_running_loop().call_soon(stop)
            else:
                server.drain()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        try:
            engine = await loading
        except asyncio.CancelledError:
            return
        try:
            evaluation = engine_config.adapter / "evaluation.json" if engine_config.adapter else None
            if is_open(config.host, config.api_keys):
                logger.warning("open to everyone who can reach %s; --api-key-file asks for keys", config.host)
            admission = new_admission(config, engine)
            measured = evaluation.read_bytes() if evaluation and evaluation.is_file() else None
            api = create_app(config, engine, text, space, measured, admission)
            settings = HttpConfig(api, config.limits, admission, timeout_graceful_shutdown=FAREWELL_S)
            server = HttpServer(settings, lambda: _announce(config, listener, space, engine_config.logs))
            await server.serve(sockets=[listener])
        finally:
            await engine.close()


def _bind(config: ServerConfig) -> socket.socket:
    """The listening address, taken before the model is loaded: a port in use shows at once."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # Named as TCP, or asyncio leaves Nagle's algorithm on and every answer takes 40 ms more.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
        listener.listen()  # before the model is loaded: who connects early waits, and a second server cannot begin
    except (OSError, UnicodeError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot listen on {config.host}:{config.port}: {reason.lower()}") from None
    return listener


def _announce(config: ServerConfig, listener: socket.socket, space: PreferenceSpace | None, logs: LogConfig) -> None:
    announcement = _announcement(config, listener, space)
    if logs.format == "text":
        typer.echo(announcement, err=True)
    else:
        for line in announcement.splitlines():
            logger.info(line)


def _announcement(config: ServerConfig, listener: socket.socket, space: PreferenceSpace | None) -> str:
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host  # noqa: S104 (a comparison)
    url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    lines = [f"Panacea serves {config.model_name} on {url}"]
    if space is not None and space.names:
        lines.append(f"Preferences: {', '.join(space.names)}")
    lines.append(f"A request to copy: curl {url}/     Every field: {url}/docs")
    return "\n".join(lines)


@bench_app.command("steering")
def bench_steering(
    adapter: Annotated[str | None, typer.Option(help="Adapter: a folder or a hub id. Default: the demo.")] = None,
    requests: Annotated[int, typer.Option(min=1, help="How many requests, each with its own preference.")] = 16,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens that every request generates.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds after one to warm up; medians are printed.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads, for all ways alike.")] = 1,
) -> None:
    """What it costs that every request has its own preference: one batch against one by one with merged weights.

    Prints a table, and the numbers as JSON in the last line.
    """
    from panacea_lab.bench.steering import SteeringBench, report

    base_folder, adapter_folder, _ = _checkpoints(None, adapter)
    assert adapter_folder is not None
    typer.echo(report(SteeringBench(base_folder, adapter_folder, requests, tokens, rounds, threads).run()))


_SHAPES = Annotated[
    str, typer.Option("--model", metavar="NAME|CONFIG", help="llama-3.1-8b, qwen2.5-0.5b, tiny, or a config.json.")
]
_JSON = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all numbers to this file too.")]


@bench_app.command("kernels")
def bench_kernels(
    model: _SHAPES = "llama-3.1-8b",
    rows: Annotated[str, typer.Option(help="Rows of a step: one per decoding request.")] = "1,8,32,64,128,256",
    ranks: Annotated[str, typer.Option(help="Ranks of the adapter.")] = "3,11,16,64",
    device: Device = "auto",
    dtype: DType = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians are printed.")] = 20,
    sweep: Annotated[bool, typer.Option("--sweep", help="Try other tiles of the fused kernel instead.")] = False,
    json_file: _JSON = None,
) -> None:
    """Microseconds of one layer's projections: base alone, steered by our kernels, by torch, by a generic pair.

    Random weights: nothing is downloaded. On a CPU it only shows that it runs; kernels need TRITON_INTERPRET=1 there.
    """
    from panacea_lab.bench import projection_kernels as kernels

    check_writable("--json", json_file)
    sizes = kernels.KernelsBench(model, _numbers("rows", rows), _numbers("ranks", ranks), device, dtype, rounds)
    if not sweep:
        _print_bench(sizes.run(), kernels.report, json_file)
        return
    try:
        from panacea_lab.bench import tile_sweep as tiles
    except ImportError as error:
        raise ConfigError(f"--sweep needs Triton ({error})") from None
    _print_bench(tiles.KernelsSweep(sizes).run(), tiles.report, json_file)


@bench_app.command("decode")
def bench_decode(
    model: _SHAPES = "llama-3.1-8b",
    batches: Annotated[str, typer.Option(help="Requests in a step.")] = "1,8,32,128,256",
    context: Annotated[int, typer.Option(min=1, help="Tokens that every request has in the cache.")] = 1024,
    ranks: Annotated[str, typer.Option(help="Ranks of the adapters.")] = "11,64",
    device: Device = "auto",
    dtype: DType = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians are printed.")] = 12,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Compile transformers' own layers as a competitor.")
    ] = True,
    json_file: _JSON = None,
) -> None:
    """Milliseconds of a decode step: without adapter, all preferences different, one preference; and transformers'.

    Random weights: nothing is downloaded. On a CPU it only shows that it runs: choose --model tiny --context 100.
    """
    from panacea_lab.bench import decode

    check_writable("--json", json_file)
    bench = decode.DecodeBench(
        model,
        _numbers("batches", batches),
        context,
        _numbers("ranks", ranks),
        device,
        dtype,
        rounds,
        "inductor" if compiled else None,
    )
    _print_bench(bench.run(), decode.report, json_file)


@bench_app.command("throughput")
def bench_throughput(
    model: _SHAPES = "llama-3.1-8b",
    requests: Annotated[int, typer.Option(min=1, help="Requests at once, each with its own preference.")] = 256,
    prompt: Annotated[str, typer.Option(metavar="LEAST,MOST", help="Tokens of a prompt.")] = "32,1024",
    answer: Annotated[str, typer.Option(metavar="LEAST,MOST", help="Tokens of an answer.")] = "32,256",
    rank: Annotated[int, typer.Option(min=1, help="Rank of the adapter.")] = 11,
    device: Device = "auto",
    dtype: DType = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds after a short one to warm up; medians are printed.")] = 3,
    json_file: _JSON = None,
) -> None:
    """Tokens per second for a mix of requests, beside transformers' own continuous batching of the bare base.

    Random weights: nothing is downloaded. On a CPU it only shows that it runs: choose --model tiny --prompt 4,100.
    """
    from panacea_lab.bench import throughput

    check_writable("--json", json_file)
    prompts, answers = _numbers("prompt", prompt, exactly=2), _numbers("answer", answer, exactly=2)
    bench = throughput.ThroughputBench(
        model=model,
        requests=requests,
        prompt=(prompts[0], prompts[1]),
        answer=(answers[0], answers[1]),
        rank=rank,
        device=device,
        dtype=dtype,
        rounds=rounds,
    )
    _print_bench(bench.run(), throughput.report, json_file)


@bench_app.command("prefix")
def bench_prefix(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|CONFIG",
            help="llama-3.1-8b, qwen2.5-0.5b, tiny, or a config.json. Default: the demo's shapes.",
        ),
    ] = None,
    system: Annotated[int, typer.Option(min=1, help="Tokens of the system prompt that all requests share.")] = 1000,
    question: Annotated[int, typer.Option(min=1, help="Tokens behind it, of each request's own.")] = 20,
    preferences: Annotated[int, typer.Option(min=1, help="How many preferences, besides the bare base.")] = 3,
    device: Device = "auto",
    dtype: DType = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds after one to warm up; medians are printed.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: as the server takes.")] = None,
    json_file: _JSON = None,
) -> None:
    """The time to a first token behind a shared system prompt, cold and warm, for each preference.

    Random weights: nothing is downloaded.
    """
    from panacea_lab.bench import prefix_cache as prefix

    check_writable("--json", json_file)
    bench = prefix.PrefixBench(
        model=model or prefix.DEMO,
        system=system,
        question=question,
        preferences=preferences,
        device=device,
        dtype=dtype,
        rounds=rounds,
        threads=threads,
    )
    _print_bench(bench.run(), prefix.report, json_file)


@bench_app.command("soak")
def bench_soak(
    minutes: Annotated[float, typer.Option(min=0.05, help="How long; the first fifth warms up.")] = 20,
    url: Annotated[
        str | None, typer.Option(help="A server that runs already: http://127.0.0.1:8000, say. Default: its own.")
    ] = None,
    pid: Annotated[
        int | None,
        typer.Option(min=1, help="Process of the server at --url. Without it, only its /metrics tell of it."),
    ] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="The first key in it is sent to --url.")] = None,
    clients: Annotated[int, typer.Option(min=1, help="Clients, each with one request at a time.")] = 8,
    seed: Annotated[int, typer.Option(help="Same seed, same requests.")] = 0,
    prompt_chars: Annotated[
        int, typer.Option(min=40, help="Most characters of a prompt; it has to fit into the context.")
    ] = 1200,
    memory_limit: Annotated[
        float, typer.Option(min=0, help="Growth of a process' memory that is too much, in MiB an hour.")
    ] = 20.0,
    json_file: _JSON = None,
) -> None:
    """Mixed load for a long time, and whether memory, descriptors, tasks, blocks, slots and latency are what they were.

    Serves the embedded demo model, with a small cache so that blocks are fought for, unless --url names a server. Exit
    code 1, with the reasons, if anything is not as it should be.
    """
    from panacea_lab.bench.soak import soak_bench as soak
    from panacea_lab.bench.soak.soak_limits import Limits

    check_writable("--json", json_file)
    if url is None and (pid is not None or api_key_file is not None):
        raise ConfigError("--pid and --api-key-file say how to reach the server at --url")
    own = ("--port", "0", "--max-batch", "16", "--kv-cache-gib", "0.012")
    keys = read_api_keys(api_key_file)
    bench = soak.SoakBench(
        minutes=minutes,
        command=() if url else (sys.executable, "-m", "panacea_commands", "serve", *own),
        url=url or "",
        pid=pid,
        key=keys[0] if keys else None,
        clients=clients,
        seed=seed,
        prompt_chars=prompt_chars,
        limits=Limits(memory_mib_per_hour=memory_limit),
    )
    result = bench.run()
    _print_bench(result, soak.report, json_file)
    if result["reasons"]:
        raise typer.Exit(1)


def _numbers(name: str, text: str, exactly: int | None = None) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or len(numbers) != (exactly or len(numbers)):
        raise ConfigError(f"--{name} must be {exactly or 'whole'} numbers with commas between, like 1,8: not {text!r}")
    return numbers


def _print_bench(result: dict[str, Any], report: Callable[[dict[str, Any]], str], json_file: Path | None) -> None:
    typer.echo(report(result))
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
