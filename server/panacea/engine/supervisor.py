"""Restarts the engine's process after it has died, hung or failed. asyncio, no torch."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable

from panacea.config import EngineConfig, Supervision
from panacea.engine.client import EngineClient
from panacea.engine.outputs import EngineInfo, EngineStats
from panacea.engine.request import Request
from panacea.engine.token_stream import TokenStream
from panacea.errors import EngineDeadError, PanaceaError

logger = logging.getLogger(__name__)

Launcher = Callable[[], Awaitable[EngineClient]]
"""Starts an engine's process and waits until its model is loaded."""


class Supervisor:
    """Runs one engine process after another, with the interface of a single `EngineClient`. Made by `start`.

    While no process serves, requests fail at once and `alive` is false. A process that fails soon after its start is
    restarted after a back-off, which doubles each time. If the model has loaded once, there is no limit on restarts,
    because a disk or a device may come back.
    """

    info: EngineInfo

    def __init__(self, launch: Launcher, supervision: Supervision) -> None:
        self._launch = launch
        self._supervision = supervision
        self._engine: EngineClient | None = None
        self._restarts = 0
        self._failures = 0  # in a row
        self._load_s = 0.0
        self._back_at = 0.0
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls, config: EngineConfig, supervision: Supervision | None = None, launch: Launcher | None = None
    ) -> "Supervisor":
        """Starts the first engine. Raises its `EngineError` if it cannot load: another process would fail too."""
        supervision = supervision or Supervision()
        supervisor = cls(launch or (lambda: EngineClient.start(config, supervision)), supervision)
        supervisor._serve_with(await supervisor._timed_launch())
        supervisor._task = asyncio.create_task(supervisor._keep_up())
        return supervisor

    @property
    def alive(self) -> bool:
        return self._engine is not None and self._engine.alive

    @property
    def heartbeat_age_s(self) -> float:
        """Seconds since the engine's last message; infinite while no engine serves."""
        return math.inf if self._engine is None else self._engine.heartbeat_age_s

    @property
    def stats(self) -> EngineStats | None:
        """The current engine's state at its last heartbeat. Counters start at 0 with each process."""
        return None if self._engine is None else self._engine.stats

    @property
    def restarts(self) -> int:
        """How many times a new process replaced a failed one."""
        return self._restarts

    @property
    def pid(self) -> int | None:
        """Id of the current process; None while none serves."""
        return None if self._engine is None else self._engine.pid

    def open(self, request: Request) -> TokenStream:
        """As `EngineClient.open`. Raises `EngineDeadError` while no engine serves."""
        if self._engine is None or not self._engine.alive:
            raise self._absent()
        return self._engine.open(request)

    async def close(self) -> None:
        """Ends the engine and all its requests. Calling it again changes nothing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()

    def _serve_with(self, engine: EngineClient) -> None:
        self._engine, self.info = engine, engine.info

    async def _timed_launch(self) -> EngineClient:
        begin = time.monotonic()
        engine = await self._launch()
        self._load_s = time.monotonic() - begin
        return engine

    async def _keep_up(self) -> None:
        while True:
            engine = self._engine
            assert engine is not None
            begin = time.monotonic()
            reason = await engine.failed()
            if time.monotonic() - begin > self._supervision.healthy_s:
                self._failures = 0
            logger.error("the engine failed: %s", reason)
            try:
                await engine.close()
            except Exception:
                logger.exception("the failed engine could not be cleaned up")
            self._engine = None
            self._serve_with(await self._replacement())
            self._restarts += 1
            logger.warning("the engine is back after %.1f s", self._load_s)

    async def _replacement(self) -> EngineClient:
        while True:
            delay_s = self._next_delay_s()
            self._back_at = time.monotonic() + delay_s + self._load_s
            logger.warning("starting the engine again in %g s", delay_s)
            await asyncio.sleep(delay_s)
            try:
                return await self._timed_launch()
            except PanaceaError as error:
                logger.error("the engine could not be started: %s", error)
            except Exception:  # too little memory for a process, or no space for its sockets: that may change
                logger.exception("the engine could not be started")

    def _next_delay_s(self) -> float:
        limits, self._failures = self._supervision, self._failures + 1
        if self._failures == 1:
            return 0.0
        return min(limits.backoff_s * 2.0 ** min(self._failures - 2, 30), limits.backoff_limit_s)

    def _absent(self) -> EngineDeadError:
        error = EngineDeadError("its process is being restarted; try again later")
        error.retry_after_s = max(1.0, self._back_at - time.monotonic())
        return error
