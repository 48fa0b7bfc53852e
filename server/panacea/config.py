"""Frozen configuration of the engine and of the server. Nothing writes into these after the command line built them."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from panacea.errors import ConfigError

DType = Literal["auto", "float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]


@dataclass(frozen=True)
class LogConfig:
    """What is logged, and how a line looks."""

    level: LogLevel = "info"
    format: LogFormat = "text"


@dataclass(frozen=True)
class EngineConfig:
    """What one engine loads and how much it may hold. Paths are local folders: hub ids are resolved before.

    Raises `ConfigError` when built from numbers that no engine could run with.
    """

    model: Path
    adapter: Path | None = None
    dtype: DType = "auto"
    """"auto" on CUDA is the checkpoint's own if it has 16 bits, else bfloat16; on a CPU it is float32."""
    device: Device = "auto"
    max_batch: int = 64
    """Most requests in one step; the preference table has a row for each."""
    max_step_tokens: int = 512
    """Most tokens in one step: a long prompt is prefilled in chunks that leave room for everyone's next token."""
    block_size: int = 16
    """Tokens in one block of the KV cache."""
    num_blocks: int | None = None
    """Blocks in the KV cache; None sizes it from `kv_cache_bytes`."""
    kv_cache_bytes: int | None = None
    """Upper limit of the KV cache's size; None is 1 GiB on a CPU, and on a GPU what `gpu_memory_share` leaves. No more
    is taken than `max_batch` full contexts can use."""
    gpu_memory_share: float = 0.9
    """How much of the GPU's memory weights, activations and KV cache may take together."""
    deterministic: bool = False
    """Batch invariance: the same log probabilities to the last bit, whoever shares the batch. Slower."""
    prefix_cache: bool = True
    """Keep keys and values of prompts and answers for as long as there is room, for requests that begin alike and have
    the same preference."""
    max_context: int | None = None
    """Cap on prompt and answer together; None is the model's own limit."""
    threads: int | None = None
    """CPU threads for the model; None lets the engine choose."""
    queue_timeout_s: float | None = None
    """How long a request may wait for its first step in a server's engine; None: for as long as it takes."""
    logs: LogConfig = LogConfig()
    """For the engine's process."""

    def __post_init__(self) -> None:
        least = {
            "max_batch": 1,
            "max_step_tokens": self.max_batch,  # a token for each request
            "block_size": 1,
            "num_blocks": 1,
            "kv_cache_bytes": 1,
            "max_context": 2,
            "threads": 1,
        }
        for name, bound in least.items():
            value: int | None = getattr(self, name)
            if value is not None and value < bound:
                raise ConfigError(f"{name} is {value}, but must be at least {bound}")
        if not 0 < self.gpu_memory_share <= 1:
            raise ConfigError(f"gpu_memory_share is {self.gpu_memory_share}, but must be above 0 and at most 1")
        if self.queue_timeout_s is not None and not 0 < self.queue_timeout_s < math.inf:
            raise ConfigError(f"queue_timeout_s is {self.queue_timeout_s}, but must be a number above 0")


@dataclass(frozen=True)
class Supervision:
    """How an engine's process is watched, and how another one is started in its place.

    Raises `ConfigError` when built from numbers that mean nothing.
    """

    watchdog_s: float = 10.0
    """The process is ended when it was silent for longer. It speaks twice a second from a thread of its own, in the
    midst of a long step too."""
    step_limit_s: float = 300.0
    """It is ended too when one step takes longer. The longest good ones prefill `max_step_tokens` of a large model on a
    slow CPU: 512 tokens of 8 billion parameters take 80 s at 100 GFLOPS."""
    backoff_s: float = 1.0
    """Time before the second start in a row; the first is at once, each further one waits twice as long."""
    backoff_limit_s: float = 60.0
    healthy_s: float = 60.0
    """An engine that served for longer failed for the first time: its successor starts at once."""

    def __post_init__(self) -> None:
        for name in ("watchdog_s", "step_limit_s"):
            if not 1 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}, but must be a number of seconds, at least 1")


@dataclass(frozen=True)
class Limits:
    """What one client, or all of them together, may take of a server. docs/production.md says what each one shows.

    Raises `ConfigError` when built from numbers that mean nothing. Where a limit may be None, that is none.
    """

    max_queued_requests: int = 512
    """Answers that may wait besides those that a full batch computes; each of a call's `n` answers is one."""
    max_queued_tokens: int = 1 << 20
    """Prompt tokens of all answers that have no token yet."""
    max_queued_body_bytes: int = 256 << 20
    """Bodies of all requests that are not answered yet."""
    max_prompt_tokens: int | None = None
    max_answer_tokens: int | None = None
    """The most that `max_tokens` may say, and what it is where the request says nothing."""
    max_body_bytes: int = 4 << 20
    max_head_bytes: int = 16 << 10
    """Request line and headers together, as most servers have it."""
    max_headers: int = 100
    """Apache's number."""
    max_connections: int = 1000
    """Further ones are told that there are too many; only probes are answered."""
    head_timeout_s: float = 10.0
    """For a request's line and headers, from the first byte, and from the opening of a connection to that byte."""
    body_timeout_s: float = 30.0
    """For a request's body. 4 MiB take 1.1 Mbit/s."""
    idle_timeout_s: float = 75.0
    """How long a connection stays open between requests: longer than the 60 s of the usual load balancers, which must
    be the ones to close it."""
    first_token_timeout_s: float = 300.0
    request_timeout_s: float = 1800.0
    """For a request as a whole, from its headers to its last token."""
    slow_reader_timeout_s: float = 30.0
    """How long a client may take in nothing of what is there for it."""
    max_unread_tokens: int = 1024
    """How many tokens of its stream a client may be behind."""
    drain_timeout_s: float = 25.0
    """For what was admitted, once the server is told to end. Kubernetes kills after 30 s."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not 0 < value < math.inf and (name, value) != ("max_queued_requests", 0):
                raise ConfigError(f"{name} is {value}, but must be a number above 0")


@dataclass(frozen=True)
class ServerConfig:
    """What the HTTP half needs to know besides the model."""

    model_name: str
    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = ()
    """Accepted bearer keys; without any the server is open and ignores Authorization."""
    allowed_hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    """Host headers that are answered (without port); "*" allows all. Stops DNS rebinding from a visited web page."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may ask from a browser; "*" allows all. The server's own page needs none."""
    limits: Limits = Limits()
    heartbeat_limit_s: float = 10.0
    """`/ready` is 503 when the engine was silent for longer."""
