"""Frozen configurations of the engine and of the server, and the options that a user sets in them.

An option is declared once, as a field of a class that ends in `Options`, or of `Watchdog`, `Limits` or `LogConfig`. The
field has the option's type and default, and the docstring below it is the text of `--help`. The flag (`--max-batch`),
the environment variable (`PANACEA_MAX_BATCH`) and the key in a configuration file (`max_batch`) follow from its name.

Every class here raises `ConfigError` when it is built from values that cannot be used.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from panacea.api_key import ApiKey
from panacea.bounds import Bounded, Bounds, Count, Natural, Positive
from panacea.errors import ConfigError, OptionError

DType = Literal["auto", "float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]


@dataclass(frozen=True)
class LogConfig:
    """Which log lines are written, and how they look. The options are `--log-level` and `--log-format`."""

    level: LogLevel = "info"
    """Least level that is logged. info logs each request; debug also logs probes and files."""
    format: LogFormat = "text"
    """text for people, json for programs: one line per event."""


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(Bounded):
    """Where and how a model computes."""

    dtype: DType = "auto"
    """Number format of the weights. auto: on CUDA the checkpoint's own 16 bits, else bfloat16; on a CPU float32."""
    device: Device = "auto"
    """Where the model runs. auto: CUDA if there is a GPU, else the CPU."""
    threads: Count | None = None
    """CPU threads of the model. Default: one for tiny models, else all cores."""
    max_batch: Count = 64
    """Most requests in one step."""  # the preference table has a row for each


@dataclass(frozen=True, kw_only=True)
class EngineOptions(ComputeOptions):
    """How an engine computes, and how much it may hold."""

    max_step_tokens: Count = 512
    """Most tokens in one step. Longer prompts are prefilled in chunks. At least --max-batch."""
    max_context: Annotated[int | None, Bounds(least=2)] = None
    """Most tokens of prompt and answer together. Default: the model's own limit."""
    kv_cache_gib: Positive | None = None
    """Most memory for the KV cache, in GiB. Default: 1 on a CPU; on a GPU what --gpu-memory-share leaves. The cache
    never takes more than --max-batch full contexts need."""
    gpu_memory_share: Annotated[float, Bounds(least=0.01, most=1)] = 0.9
    """Share of the GPU's memory for weights, activations and KV cache together."""
    prefix_cache: bool = True
    """Keep the KV blocks of prompts and answers while there is room. Requests with the same preference and the same
    beginning reuse them."""
    deterministic: bool = False
    """Batch invariance: a request gets the same log probabilities, to the last bit, in any batch. Slower. For Llama,
    Mistral, Qwen2 and Qwen3 only."""
    trust_model: bool = False
    """Skip the comparison with transformers' own forward at load. It is made for each model family that the tests do
    not prove. A wrong family then gives wrong answers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_step_tokens < self.max_batch:
            problem = f"is {self.max_step_tokens}, but must be at least the batch's {self.max_batch}"
            raise OptionError("max_step_tokens", f"{problem}: each request needs one token per step")

    @property
    def kv_cache_bytes(self) -> int | None:
        """Upper limit of the KV cache's size in bytes; None lets the engine choose."""
        return None if self.kv_cache_gib is None else round(self.kv_cache_gib * 2**30)


@dataclass(frozen=True)
class EngineConfig(EngineOptions):
    """What one engine loads and how much it may hold. Paths are local folders: hub ids are resolved before."""

    model: Path
    adapter: Path | None = None
    block_size: Count = 16
    """Tokens in one block of the KV cache."""
    num_blocks: Count | None = None
    """Blocks in the KV cache; None sizes it from `kv_cache_bytes`."""
    queue_timeout_s: Positive | None = None
    """Longest time a request may wait for its first step in a server's engine; None: without limit."""
    logs: LogConfig = LogConfig()
    """For the engine's process."""


@dataclass(frozen=True, kw_only=True)
class Watchdog(Bounded):
    """When an engine's process counts as failed, so that it is ended and started again."""

    # The process sends a heartbeat twice a second from a thread of its own, also during a long step.
    watchdog_s: Annotated[float, Bounds(least=1)] = 10.0
    """Restart an engine that has sent no heartbeat for this many seconds. It sends two per second."""
    # The longest good step prefills `max_step_tokens` of a large model on a slow CPU: 512 tokens of 8 billion
    # parameters take 80 s at 100 GFLOPS.
    step_limit_s: Annotated[float, Bounds(least=1)] = 300.0
    """Restart an engine whose step takes longer than this many seconds. A prefill of --max-step-tokens must fit."""


@dataclass(frozen=True, kw_only=True)
class Supervision(Watchdog):
    """How an engine's process is watched, and how another one is started in its place."""

    backoff_s: Positive = 1.0
    """Time before the second start in a row. The first start is immediate, and each further one waits twice as long."""
    backoff_limit_s: Positive = 60.0
    healthy_s: Positive = 60.0
    """After this time in service a failure counts as the engine's first: the next engine starts at once."""


@dataclass(frozen=True)
class Limits(Bounded):
    """What one client, or all clients together, may take of a server. docs/production.md says what each limit shows.

    A limit of None does not apply.
    """

    max_queued_requests: Natural = 512
    """Most answers that wait besides a full batch; beyond it 429. Each of a call's n answers counts."""
    max_queued_tokens: Count = 1 << 20
    """Most prompt tokens that wait; beyond it 429."""  # of all answers that have no token yet
    max_queued_body_mib: Positive = 256.0
    """Most MiB of request bodies that are not answered yet; beyond it 429."""
    max_body_mib: Positive = 4.0
    """Largest request body in MiB; beyond it 413."""
    max_prompt_tokens: Count | None = None
    """Longest prompt in tokens; beyond it 400. Default: what the context holds."""
    max_answer_tokens: Count | None = None
    """Largest max_tokens of a request, and its value where a request gives none; beyond it 400. Default: what the
    context leaves."""
    requests_per_minute: Count | None = None
    """Most requests per minute with one key, or without keys of all clients together; beyond it 429. Each of a call's n
    answers counts. Default: no limit. A key file may set it for a key."""
    tokens_per_minute: Count | None = None
    """Most tokens of prompts and answers per minute, counted like --requests-per-minute; beyond it 429. Default: no
    limit."""
    max_wrong_keys: Count = 30
    """Most wrong API keys per minute from one address; beyond it 429. Right keys from the same address still work."""
    max_connections: Count = 1000
    """Most open connections; beyond it the oldest without a complete request is closed, or else 503. Probes are still
    answered."""
    max_peer_connections: Count = 256
    """Most connections of one client address without a complete request; beyond it the oldest is closed."""
    head_timeout_s: Positive = 10.0
    """Seconds from a request's first byte to the end of its headers, and from opening a connection to that byte; then
    408."""
    body_timeout_s: Positive = 30.0
    """Seconds for a request's body; then 408."""  # 4 MiB take 1.1 Mbit/s
    # Longer than the 60 s of the usual load balancers, which must be the ones to close a connection.
    idle_timeout_s: Positive = 75.0
    """Seconds that a connection stays open between requests. Must exceed the load balancer's."""
    queue_timeout_s: Positive = 60.0
    """Seconds until a request's first step; then 503."""
    first_token_timeout_s: Positive = 300.0
    """Seconds until a request's first token; then 504."""
    request_timeout_s: Positive = 1800.0
    """Seconds from a request's headers to its last token; then 504."""
    slow_reader_timeout_s: Positive = 30.0
    """Seconds in which a client may read nothing although data is ready; then its connection is reset."""
    max_unread_tokens: Count = 1024
    """Most tokens of a stream that a client may lag behind; then its connection is reset."""
    # Kubernetes kills after 30 s.
    drain_timeout_s: Positive = 25.0
    """Seconds for open requests after SIGTERM; then they are cut off."""

    hide_cached_tokens: bool = False
    """Do not report cached tokens in usage. Among clients with one key they tell what the others have sent."""

    max_head_bytes: ClassVar[int] = 16 << 10
    """Request line and headers together, as most servers have it."""
    max_headers: ClassVar[int] = 100
    """Apache's number."""

    @property
    def max_body_bytes(self) -> int:
        return round(self.max_body_mib * 2**20)

    @property
    def max_queued_body_bytes(self) -> int:
        return round(self.max_queued_body_mib * 2**20)


@dataclass(frozen=True, kw_only=True)
class ListenOptions(Bounded):
    """Where a server listens."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Bounds(least=0, most=65535)] = 8000
    """Port to listen on. 0 takes a free one."""
    unix_socket: Path | None = None
    """Unix socket to listen on, instead of an address, for a proxy on the same machine. Its group may connect."""
    probe_port: Annotated[int | None, Bounds(least=0, most=65535)] = None
    """Second port for /health, /ready and /metrics, answered whatever the server does, without TLS. 0 takes a free one.
    Default: none."""
    probe_host: str | None = None
    """Address of --probe-port. Default: --host."""
    tls_certificate: Path | None = None
    """PEM file with the server's certificate and then its issuers'. The server then speaks HTTPS, from TLS 1.2 on."""
    tls_key: Path | None = None
    """PEM file with the certificate's private key, without a password."""


@dataclass(frozen=True)
class ServerConfig(ListenOptions):
    """What the HTTP half needs to know besides the model."""

    model_name: str
    api_keys: tuple[ApiKey, ...] = ()
    """Accepted bearer keys; without any the server is open and ignores Authorization."""
    api_key_file: Path | None = None
    """File that `api_keys` were read from. It is read again when it changes."""
    allowed_hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    """Host headers that are answered (without port); "*" allows all. Stops DNS rebinding from a visited web page."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may ask from a browser; "*" allows all. The server's own page needs none."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    otlp_endpoint: str | None = None
    """Base URL of the collector that gets OpenTelemetry traces."""
    limits: Limits = Limits()
    heartbeat_limit_s: Positive = 10.0
    """`/ready` is 503 when the engine was silent for longer."""
    loop_limit_s: Positive = 10.0
    """On the probe port, `/health` is 503 when the event loop has not run for longer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.api_key_file is not None and not self.api_keys:
            raise ConfigError("api_key_file needs the keys that were read from it; without any the server is open")
