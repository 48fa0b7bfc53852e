"""`--probe-port`: /health, /ready and /metrics from a thread with an event loop of its own.

The main event loop can be busy for seconds, and does nothing at all while a model loads. This one answers meanwhile, so
that an orchestrator sees the difference between a server that works and one that hangs.
"""

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from panacea.api.access.admission import Admission
from panacea.api.access.key_ring import KeyRing
from panacea.api.connections.connection import HttpConfig
from panacea.api.connections.http_server import HttpServer
from panacea.api.connections.loop_clock import LoopClock, loop_clock
from panacea.api.engine_interface import EngineLike
from panacea.api.error_responses import ApiError
from panacea.api.information.health_route import Health, Readiness, reason_not_ready
from panacea.config import Limits

_LIMITS = Limits(
    max_connections=50, max_peer_connections=25, head_timeout_s=5.0, body_timeout_s=5.0, max_body_mib=0.001
)
_STOP_LIMIT_S = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProbedServer:
    """What the probes report about. Read from another thread, so nothing here waits or changes anything."""

    app: ASGIApp
    """Answers /metrics, with the same keys and hosts as on the main port."""
    engine: EngineLike
    admission: Admission
    heartbeat_limit_s: float


class ProbePort:
    """An ASGI app of three paths, and the thread that serves it. Made by `probe_port`."""

    def __init__(self, listener: socket.socket, loop_limit_s: float) -> None:
        """`listener` is bound. The event loop of the caller is the one that is watched."""
        self.probed: ProbedServer | None = None
        """None while the model loads."""
        self._clock: LoopClock = loop_clock()
        self._loop_limit_s = loop_limit_s
        self._listener = listener
        # Its own admission: connections here must not change the main port's counts from another thread.
        http = HttpConfig(
            self, _LIMITS, Admission(_LIMITS, 1, KeyRing((), _LIMITS)), lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = HttpServer(http, lambda: None)
        self._thread = threading.Thread(target=self._run, name="probe-port", daemon=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = self._answer(scope["path"], scope["method"])
        except ApiError as error:
            answer = error.response()
        # uvicorn leaves out the body of a response to HEAD.
        await answer({**scope, "method": "GET"}, receive, send)

    def start(self) -> None:
        """Answers from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, or leaves it to the process's end if it takes too long."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(_STOP_LIMIT_S)

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._listener]))

    def _answer(self, path: str, method: str) -> ASGIApp:
        if path not in ("/health", "/ready", "/metrics"):
            raise ApiError(404, "the probe port serves /health, /ready and /metrics alone")
        if method not in ("GET", "HEAD"):
            raise ApiError(405, "this path does not support this method", headers={"allow": "GET, HEAD"})
        if path != "/metrics":
            self._check_loop()
        if path == "/health":
            return JSONResponse(Health().model_dump())
        if self.probed is None:
            raise ApiError(503, "the model is being loaded", code="loading")
        if path == "/metrics":
            return self.probed.app
        error = reason_not_ready(self.probed.engine, self.probed.admission, self.probed.heartbeat_limit_s)
        if error is not None:
            raise error
        return JSONResponse(Readiness().model_dump())

    def _check_loop(self) -> None:
        # Before the model is loaded nothing is served, and its tokenizer is read in the event loop.
        if self.probed is not None and self._clock.idle_s > self._loop_limit_s:
            message = f"the server's event loop has not run for {self._loop_limit_s:g} s; restart the server"
            raise ApiError(503, message, code="event_loop_blocked")


@asynccontextmanager
async def probe_port(listener: socket.socket | None, loop_limit_s: float) -> AsyncGenerator[ProbePort | None]:
    """Answers probes on `listener` until the block ends. None: nothing happens."""
    if listener is None:
        yield None
        return
    port = ProbePort(listener, loop_limit_s)
    port.start()
    try:
        yield port
    finally:
        await asyncio.to_thread(port.stop)
