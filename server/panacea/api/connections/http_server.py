"""The server around the application: looks after its connections, and ends in good order."""

import logging
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn

from panacea.api.connections.connection import Connection, HttpConfig

logger = logging.getLogger(__name__)

_TICKS_PER_CHECK = 5
"""uvicorn ticks ten times a second."""
FAREWELL_S = 2
"""How long the last answers may take to be written."""


class HttpServer(uvicorn.Server):
    """uvicorn, with limits on connections and with a drain.

    Told to drain it refuses what is new, still listening so that a probe and a balancer learn of it, and ends once what
    it had admitted is answered or its time is up.
    """

    config: HttpConfig

    def __init__(self, config: HttpConfig, on_start: Callable[[], None]) -> None:
        """`on_start` is called when the server listens."""
        super().__init__(config)
        self._on_start = on_start
        self._drain_ends_at: float | None = None

    def drain(self) -> None:
        """Begins to end. Called again, ends at once."""
        if self._drain_ends_at is not None or self.should_exit:
            self._end_at_once()
            return
        limit_s = self.config.limits.drain_timeout_s
        self.config.admission.drain()
        self._drain_ends_at = time.monotonic() + limit_s
        if not self.config.admission.is_idle:
            logger.warning("shutting down once open requests are answered, in %g s at most", limit_s)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Signals are the caller's: uvicorn would die of them before the engine was ended in good order."""
        yield

    async def on_tick(self, counter: int) -> bool:
        now = time.monotonic()
        if counter % _TICKS_PER_CHECK == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.check(now)
        if self._drain_ends_at is not None:
            admission = self.config.admission
            if not admission.is_idle and now >= self._drain_ends_at:
                logger.warning("requests that took too long are cut off")
                admission.cut_off()
                self.should_exit = True
            self.should_exit = self.should_exit or admission.is_idle
        return await super().on_tick(counter)

    def _end_at_once(self) -> None:
        self.should_exit = self.force_exit = True
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.transport.abort()
