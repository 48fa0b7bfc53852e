"""Turns at work that holds up the event loop: one at a time, and each tenant in its turn."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary


class ParsingTurns:
    """A lock that goes to each waiting tenant in turn. Within a tenant, the first to wait is the first to have it."""

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By tenant; the next one is first."""

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncGenerator[None]:
        """Within the block, nobody else has a turn."""
        if self._is_taken:
            await self._wait(tenant)
        self._is_taken = True
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, tenant: str) -> None:
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(called)
        try:
            await called
        except asyncio.CancelledError:
            if not called.cancelled():  # it had its turn already
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            tenant = next(iter(self._waiting))
            queue = self._waiting.pop(tenant)
            called = queue.popleft()
            if queue:
                self._waiting[tenant] = queue  # behind all others
            if not called.done():
                called.set_result(None)
                return
        self._is_taken = False


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, ParsingTurns] = WeakKeyDictionary()


def parsing_turns() -> ParsingTurns:
    """The turns at parsing large bodies in the running event loop."""
    return _turns.setdefault(asyncio.get_running_loop(), ParsingTurns())
