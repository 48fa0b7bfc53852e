"""A real server on a real socket, in a thread of its own."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from opentelemetry.trace import Tracer

from panacea.api import EngineLike, create_app
from panacea.api.access.admission import Admission
from panacea.api.app import new_admission
from panacea.api.connections.connection import HttpConfig
from panacea.api.connections.http_server import HttpServer
from panacea.api.connections.tls import TlsConfig
from panacea.api_key import ApiKey
from panacea.config import Limits, ServerConfig
from panacea.preference import Dimension, PreferenceSpace
from panacea.text import load_model_text
from panacea.text.pool import TextService
from tests.api.text_workers import text_workers
from tests.golden_files import BASE

TEXT = load_model_text(BASE)
SPACE = PreferenceSpace(
    dimensions=(
        Dimension("helpful", "says more of what helps"),
        Dimension("harmless", "keeps away from what hurts"),
        Dimension("concise", "says it in few words"),
    ),
    default=(0.4, 0.3, 0.3),
    presets={"brief": (0, 0, 1), "thorough": (3, 1, 0)},
    example_prompts=("How do I sharpen a knife?", "What's in the attic?"),
)
NAME = "tiny"
DEFAULT_LIMITS = Limits()


class ClosableEngine(EngineLike, Protocol):
    async def close(self) -> None: ...


EngineMaker = Callable[[], Awaitable[EngineLike]]
"""Called in the server's event loop. An engine that has `close` is closed there when the server ends."""


@dataclass(frozen=True)
class Served:
    """A running server."""

    port: int
    engine: EngineLike
    server: HttpServer
    stop: Callable[[], None]
    """Ends the server; leaving the block does it too."""

    @property
    def admission(self) -> Admission:
        return self.server.config.admission

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serving(
    make_engine: EngineMaker,
    *,
    text: TextService | None = None,
    space: PreferenceSpace | None = SPACE,
    evaluation: bytes | None = None,
    api_keys: Sequence[str | ApiKey] = (),
    allowed_hosts: tuple[str, ...] = ServerConfig.allowed_hosts,
    cors_origins: tuple[str, ...] = (),
    limits: Limits = DEFAULT_LIMITS,
    trusted_proxies: tuple[str, ...] = (),
    tracer: Tracer | None = None,
    send_buffer_bytes: int | None = None,
    tls: ssl.SSLContext | None = None,
) -> Generator[Served]:
    """Serves until the block ends. `send_buffer_bytes`: what the kernel holds for a client; it would be megabytes."""
    config = ServerConfig(
        model_name=NAME,
        api_keys=tuple(key if isinstance(key, ApiKey) else ApiKey.of(key) for key in api_keys),
        allowed_hosts=allowed_hosts,
        cors_origins=cors_origins,
        limits=limits,
    )
    # Named as TCP, or asyncio leaves Nagle's algorithm on and every answer takes 40 ms more.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if send_buffer_bytes is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    listener.bind(("127.0.0.1", 0))
    started: list[tuple[HttpServer, EngineLike]] = []
    failures: list[BaseException] = []

    async def serve() -> None:
        engine = await make_engine()
        admission = new_admission(config, engine)
        app = create_app(config, engine, text or text_workers(), space, evaluation, admission, tracer)
        new_config = HttpConfig if tls is None else partial(TlsConfig, tls)
        server = HttpServer(
            new_config(app, limits, admission, trusted_proxies, lifespan="off", timeout_graceful_shutdown=1),
            lambda: None,
        )
        started.append((server, engine))
        await server.serve(sockets=[listener])
        close = getattr(engine, "close", None)
        if close is not None:
            await close()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failures.append(error)

    def stop() -> None:
        for server, _ in started:
            server.should_exit = True
        thread.join()

    thread = threading.Thread(target=run, name="server")
    thread.start()
    try:
        wait_until(lambda: bool(failures) or bool(started and started[0][0].started), 60)
        if failures:
            raise failures[0]
        server, engine = started[0]
        yield Served(listener.getsockname()[1], engine, server, stop)
    finally:
        stop()
        listener.close()


def wait_until(condition: Callable[[], bool], limit_s: float = 5.0) -> float:
    """Seconds until `condition` holds; fails after `limit_s`."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > limit_s:
            raise AssertionError(f"still not so after {limit_s} s")
        time.sleep(0.005)
    return time.monotonic() - begin
