"""Text workers for tests: one pool of real processes per folder, for all servers of this run."""

import asyncio
import threading
from functools import cache
from pathlib import Path

from panacea.text import ModelTokens
from panacea.text.jobs import Result, TextJob
from panacea.text.pool import TextPool, TextStats
from tests.golden_files import BASE


class PoolInThread:
    """A `TextPool` in an event loop of its own, for servers in other loops. It ends with the test run."""

    def __init__(self, folder: Path, *, several_tenants: bool) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="text workers", daemon=True).start()
        starting = TextPool.start(folder, several_tenants=lambda: several_tenants)
        self.pool = asyncio.run_coroutine_threadsafe(starting, self.loop).result(60)

    @property
    def tokens(self) -> ModelTokens:
        return self.pool.tokens

    @property
    def template_variables(self) -> frozenset[str]:
        return self.pool.template_variables

    @property
    def stats(self) -> TextStats:
        return self.pool.stats

    async def run(self, job: TextJob[Result], tenant: str) -> Result:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.pool.run(job, tenant), self.loop))

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.pool.close(), self.loop).result(60)
        self.loop.call_soon_threadsafe(self.loop.stop)


@cache
def text_workers(folder: Path = BASE, *, several_tenants: bool = True) -> PoolInThread:
    """The workers for a folder. Tests share them, so a test that kills workers starts its own."""
    return PoolInThread(folder, several_tenants=several_tenants)
