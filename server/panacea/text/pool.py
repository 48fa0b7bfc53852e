"""The workers that tokenize, render templates and try schemas out, for all requests."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec

from panacea.errors import CheckpointError, PromptTooLongError, RequestError, RequestFailedError, TextWorkerError
from panacea.text.fork_server import ForkServer, TextWorker
from panacea.text.jobs import JobDone, JobFailed, JobRefused, JobTooLong, Result, TextJob
from panacea.text.model_text import ModelTokens, load_model_tokens
from panacea.text.turns import Turns

logger = logging.getLogger(__name__)

WORKERS = 3
"""One is kept free of long jobs, and of the two others a key that is not alone has one. Each encodes a million
characters per second: a quarter of a million tokens, as much as a few GPUs prefill. A worker takes 8 MB."""
TIME_LIMIT_S = 30.0
"""Wall-clock limit of one job, for a busy machine. A job's CPU seconds are limited besides."""
_MOST_BYTES = 1 << 20
_MOST_JOBS = 10_000
"""After a job with more bytes, and after so many jobs, a worker is replaced. So nothing that a job, or a leak in a
library, leaves behind counts towards the memory of later jobs."""


@dataclass(frozen=True)
class TextStats:
    """What the workers have done so far."""

    waiting: int
    """Jobs that wait for a worker."""
    jobs: int
    waited_s: float
    """Seconds that all jobs together have waited."""
    killed: int
    """Workers that were killed, or died, during a job."""


class TextService(Protocol):
    """`TextPool`, as the HTTP routes use it."""

    @property
    def tokens(self) -> ModelTokens: ...

    @property
    def template_variables(self) -> frozenset[str]:
        """Names of the chat template's variables that a request may set."""
        ...

    @property
    def stats(self) -> TextStats: ...

    async def run(self, job: TextJob[Result], tenant: str) -> Result:
        """The job's result. Tenants take turns.

        Raises `RequestError` if the request is at fault, `TextWorkerError` if the worker was killed or late, and
        `RequestFailedError` if the job raised an unexpected exception.
        """
        ...


class TextPool:
    """A few worker processes. Made by `start`; all calls from one event loop."""

    def __init__(
        self, folder: Path, tokens: ModelTokens, source: ForkServer, *, several_tenants: Callable[[], bool]
    ) -> None:
        self.tokens = tokens
        self._folder = folder
        self._source = source
        self._turns = Turns(WORKERS, is_shared=several_tenants)
        self._idle: list[TextWorker] = []
        self._restarting = asyncio.Lock()
        self._jobs = self._killed = 0

    @classmethod
    async def start(cls, folder: Path, *, several_tenants: Callable[[], bool]) -> Self:
        """Starts the workers for the model in `folder`. `several_tenants` says whether there can be several now.

        Raises `CheckpointError` if its tokenizer or its chat template cannot be used.
        """
        source = await ForkServer.start(folder)
        try:
            pool = cls(folder, load_model_tokens(folder), source, several_tenants=several_tenants)
            pool._idle = [await source.fork() for _ in range(WORKERS)]
        except BaseException:
            await source.close()
            raise
        return pool

    @property
    def template_variables(self) -> frozenset[str]:
        return self._source.loaded.template_variables

    @property
    def stats(self) -> TextStats:
        return TextStats(self._turns.waiting, self._jobs, self._turns.waited_s, self._killed)

    async def run(self, job: TextJob[Result], tenant: str) -> Result:
        async with self._turns.turn(tenant, is_long=job.is_long):
            self._jobs += 1
            worker = self._idle.pop() if self._idle else await self._new_worker()
            return job.read(await self._perform(worker, job))

    async def close(self) -> None:
        """Ends all workers. Calling it again changes nothing."""
        for worker in self._idle:
            worker.close()
        self._idle.clear()
        await self._source.close()

    async def _perform(self, worker: TextWorker, job: TextJob[Any]) -> bytes:
        frame = msgspec.msgpack.encode(job)
        keeps = False
        try:
            async with asyncio.timeout(TIME_LIMIT_S):
                reply = await worker.ask(frame)
            keeps = not isinstance(reply, JobFailed) and len(frame) < _MOST_BYTES and worker.jobs < _MOST_JOBS
            match reply:
                case JobDone(result):
                    keeps &= len(result) < _MOST_BYTES
                    return result
                case JobRefused(message, param):
                    raise RequestError(message, param)
                case JobTooLong(max_chars, param):
                    raise PromptTooLongError(max_chars, param)
                case JobFailed(error):
                    logger.error("a text worker's job raised %s", error)
                    raise RequestFailedError(f"its text could not be processed: {error}")
        except TimeoutError:
            raise self._lost("a text worker took too long") from None
        except (EOFError, OSError):
            if await worker.ended_itself():
                self._killed += 1
                raise RequestError(job.too_much, job.param) from None
            raise self._lost("a text worker was killed") from None
        finally:  # also if the caller is cancelled, because nobody wants the reply then
            if keeps:
                self._idle.append(worker)
            else:
                worker.end()

    async def _new_worker(self) -> TextWorker:
        source = self._source
        try:
            return await source.fork()
        except TextWorkerError:
            async with self._restarting:
                if self._source is source:  # else another job has started it
                    logger.warning("the process that starts text workers has ended; starting it again")
                    await self._source.close()
                    self._source = await self._started_again()
        return await self._source.fork()

    async def _started_again(self) -> ForkServer:
        try:
            return await ForkServer.start(self._folder)
        except CheckpointError as error:
            raise TextWorkerError(f"the text workers cannot be started again: {error}") from error

    def _lost(self, reason: str) -> TextWorkerError:
        self._killed += 1
        logger.warning("%s", reason)
        return TextWorkerError(f"{reason}; try again")
