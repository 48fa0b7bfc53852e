"""The HTTP server around the application: it checks its connections, and drains requests at shutdown."""

import logging
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn

from panacea.api.connections.connection import Connection, HttpConfig

logger = logging.getLogger(__name__)

_TICKS_PER_CHECK = 5
"""uvicorn ticks ten times a second, so connections are checked twice a second."""
FAREWELL_S = 2
"""Seconds in which the last answers must be written."""


class HttpServer(uvicorn.Server):
    """uvicorn with limits on connections and with draining.

    While it drains, it rejects new requests but still listens, so that probes and load balancers see the shutdown. It
    ends when all admitted requests are answered, or when the drain timeout has passed.
    """

    config: HttpConfig

    def __init__(self, config: HttpConfig, on_start: Callable[[], None]) -> None:
        """Calls `on_start` when the server listens."""
        super().__init__(config)
        self._on_start = on_start
        self._drain_ends_at: float | None = None

    def drain(self) -> None:
        """Starts draining. A second call ends the server at once."""
        if self._drain_ends_at is not None or self.should_exit:
            self._end_at_once()
            return
        limit_s = self.config.limits.drain_timeout_s
        self.config.admission.drain()
        self._drain_ends_at = time.monotonic() + limit_s
        if not self.config.admission.is_idle:
            logger.warning("shutting down: waiting up to %g s for open requests", limit_s)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leaves signals to the caller. uvicorn's own handlers would end the process before the engine is stopped."""
        yield

    async def on_tick(self, counter: int) -> bool:
        now = time.monotonic()
        if counter % _TICKS_PER_CHECK == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.check()
        if self._drain_ends_at is not None:
            admission = self.config.admission
            if not admission.is_idle and now >= self._drain_ends_at:
                logger.warning("the drain timeout has passed: ending the requests that are still open")
                admission.cut_off()
                self.should_exit = True
            self.should_exit = self.should_exit or admission.is_idle
        return await super().on_tick(counter)

    def _end_at_once(self) -> None:
        self.should_exit = self.force_exit = True
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.transport.abort()
