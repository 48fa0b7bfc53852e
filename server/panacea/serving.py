"""Builds and runs a server: for the command, for Ray Serve, and for tests.

`serve` is the whole server: it binds the address, loads the model, answers requests and drains on SIGTERM.

    checkpoint = Checkpoint.find(adapter="./my-adapter")     # panacea.model.checkpoint
    engine = EngineConfig(checkpoint.base, checkpoint.adapter)
    asyncio.run(serve(ServerConfig(checkpoint.name), engine, checkpoint.space))

`application` is the ASGI app alone, for programs that bring their own HTTP server:

    async with application(ServerConfig(checkpoint.name), engine, checkpoint.space) as served:
        await run_elsewhere(served.app)
"""

import asyncio
import gc
import logging
import os
import resource
import socket
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from fastapi import FastAPI

from panacea.api.access.admission import Admission
from panacea.api.access.key_ring import KeyRing
from panacea.api.access.key_watch import watch_key_file
from panacea.api.app import create_app, new_admission
from panacea.api.connections.connection import HttpConfig
from panacea.api.connections.http_server import FAREWELL_S, HttpServer
from panacea.api.connections.tls import TlsConfig, tls_context
from panacea.api.engine_interface import EngineLike
from panacea.api.observability.tracing import exporting
from panacea.api.probe_port import ProbedServer, probe_port
from panacea.api_key import ApiKey
from panacea.config import EngineConfig, ServerConfig, Supervision
from panacea.engine.supervisor import Supervisor
from panacea.errors import ConfigError
from panacea.logs import configure_logs, flush_logs
from panacea.preference import PreferenceSpace
from panacea.stop_signals import StopSignals
from panacea.text.pool import TextPool
from panacea.unix_socket import unix_listener

_OTHER_FILES = 200
"""Open files besides admitted connections: refused connections, the engine, libraries' files, and a reserve."""

logger = logging.getLogger("panacea")


@dataclass(frozen=True)
class Application:
    """The ASGI app of a loaded model, and the admission that the app and an HTTP server share."""

    app: FastAPI
    admission: Admission
    engine: EngineLike


@asynccontextmanager
async def application(
    config: ServerConfig,
    engine_config: EngineConfig,
    space: PreferenceSpace | None = None,
    supervision: Supervision | None = None,
) -> AsyncGenerator[Application]:
    """Starts the engine and the text workers, gives the app that answers with them, and ends them on exit.

    `space` is the adapter's preference space, or None for a bare base model.

    Raises `ConfigError`, `CheckpointError` or `EngineDeadError` if the model cannot be loaded.
    """
    async with AsyncExitStack() as stack:
        keys = KeyRing(config.api_keys, config.limits)
        text = await TextPool.start(engine_config.model, several_tenants=lambda: keys.has_several)
        stack.push_async_callback(text.close)
        tracing = ExitStack()
        stack.push_async_callback(asyncio.to_thread, tracing.close)  # it waits for the collector
        tracer = tracing.enter_context(exporting(config.otlp_endpoint))
        engine = await Supervisor.start(engine_config, supervision or Supervision())
        stack.push_async_callback(engine.close)
        evaluation = engine_config.adapter / "evaluation.json" if engine_config.adapter else None
        measured = evaluation.read_bytes() if evaluation and evaluation.is_file() else None
        admission = new_admission(config, engine, keys)
        app = create_app(config, engine, text, space, measured, admission, tracer)
        async with _watched_keys(config.api_key_file, keys):
            yield Application(app, admission, engine)


@asynccontextmanager
async def _watched_keys(path: Path | None, keys: KeyRing) -> AsyncGenerator[None]:
    """Within the block, the keys are those of the file."""
    if path is None:
        yield
        return
    watch = asyncio.create_task(watch_key_file(path, keys))
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def serve(
    config: ServerConfig,
    engine_config: EngineConfig,
    space: PreferenceSpace | None = None,
    supervision: Supervision | None = None,
    announce: Callable[[str], None] = lambda text: None,
) -> int:
    """Serves until SIGINT, SIGTERM or SIGHUP, and returns 0.

    Takes over this process: its logs, its signals and its limit of open files. A second signal cuts off all requests
    and ends the process with the code 128 plus the signal's number.

    The address is bound before the model is loaded, so that a port in use is reported at once. `announce` gets
    `announcement` when the server is ready.

    Raises `ConfigError`, `CheckpointError` or `EngineDeadError` if the server cannot start.
    """
    make_room_for(config.limits.max_connections)
    tls = tls_context(config.tls_certificate, config.tls_key)
    with StopSignals() as signals, _listener(config) as listener, _probe_listener(config) as probes:
        configure_logs(engine_config.logs)
        async with AsyncExitStack() as stack:
            port = await stack.enter_async_context(probe_port(probes, config.loop_limit_s))
            running = application(config, engine_config, space, supervision)
            loading = asyncio.create_task(stack.enter_async_context(running))
            server: HttpServer | None = None

            def stop() -> None:
                if server is not None:
                    server.drain()
                elif loading.done():  # there is a server to stop in a moment
                    asyncio.get_running_loop().call_soon(stop)
                elif not loading.cancelling():
                    loading.cancel()

            signals.on_signal = stop
            try:
                served = await loading
            except asyncio.CancelledError:
                return signals.exit_code
            if config.unix_socket is None and is_open(config.host, config.api_keys):
                logger.warning("open to everyone who can reach %s; --api-key-file asks for keys", config.host)
            # A full collection would take 50 ms of the event loop, most of them for what is loaded now and stays.
            gc.collect()
            gc.freeze()
            new_config = HttpConfig if tls is None else partial(TlsConfig, tls)
            http = new_config(
                served.app,
                config.limits,
                served.admission,
                config.trusted_proxies,
                timeout_graceful_shutdown=FAREWELL_S,
            )
            server = HttpServer(http, lambda: announce(announcement(config, listener, space, probes)))
            if port is not None:
                port.probed = ProbedServer(served.app, served.engine, served.admission, config.heartbeat_limit_s)
            await server.serve(sockets=[listener])
        if signals.exit_code:  # the cancelled tasks that are left would log tracebacks
            flush_logs()
            os._exit(signals.exit_code)
    return 0


def _listener(config: ServerConfig) -> AbstractContextManager[socket.socket]:
    return unix_listener(config.unix_socket) if config.unix_socket is not None else bind(config.host, config.port)


def _probe_listener(config: ServerConfig) -> AbstractContextManager[socket.socket | None]:
    return nullcontext() if config.probe_port is None else bind(config.probe_host or config.host, config.probe_port)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens on the address. Raises `ConfigError` if the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, or asyncio leaves Nagle's algorithm on and every answer takes 40 ms more.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # before the model is loaded: early clients wait, and a second server cannot begin
    except (OSError, UnicodeError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot listen on {host}:{port}: {reason.lower()}") from None
    return listener


def announcement(
    config: ServerConfig, listener: socket.socket, space: PreferenceSpace | None, probes: socket.socket | None = None
) -> str:
    """What a server that is ready says: its address, its dimensions, and where to begin."""
    scheme = "http" if config.tls_certificate is None else "https"
    curl, url = "curl", f"{scheme}://{_shown(config.host)}:{listener.getsockname()[1]}"
    place = url
    if config.unix_socket is not None:
        curl, url, place = (
            f"curl --unix-socket {config.unix_socket}",
            f"{scheme}://localhost",
            f"unix:{config.unix_socket}",
        )
    lines = [f"Panacea serves {config.model_name} on {place}"]
    if space is not None and space.names:
        lines.append(f"Preferences: {', '.join(space.names)}")
    lines.append(f"A request to copy: {curl} {url}/     Every field: {url}/docs")
    if probes is not None:
        place = f"http://{_shown(config.probe_host or config.host)}:{probes.getsockname()[1]}"
        lines.append(f"Probes: {place}/health {place}/ready {place}/metrics")
    return "\n".join(lines)


def _shown(host: str) -> str:
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 (a comparison)
    return f"[{host}]" if ":" in host else host


def is_open(host: str, api_keys: Collection[ApiKey]) -> bool:
    """Whether other machines can reach a server at this address and ask it without a key."""
    try:
        is_local = ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost"
    return not is_local and not api_keys


def make_room_for(connections: int) -> None:
    """Raises this process's limit of open files to what the connections need. Raises `ConfigError` if it may not."""
    needed = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(
            f"--max-connections {connections} needs {needed} open files, but ulimit -n allows {hard}: raise one or "
            "lower the other"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
