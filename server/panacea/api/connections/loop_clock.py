"""A clock for the limits on a client's time. It stands still while the event loop does.

While the loop is busy, nothing that a client sends is read. That time must not count against the client.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

_TICK_S = 0.1
_LATE_S = 0.05
"""A tick that is later than this was held up by other work, and not by the timer's resolution."""


class LoopClock:
    """Seconds in which an event loop was running, or at most `_TICK_S` behind. Made by `loop_clock`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._held_up_s = 0.0
        self._ticked_at = time.monotonic()
        self._loop.call_later(_TICK_S, self._tick)

    def now(self) -> float:
        """Seconds since an arbitrary time, without those in which the loop was held up."""
        now = time.monotonic()
        return now - self._held_up_s - self._late_s(now)

    @property
    def idle_s(self) -> float:
        """Seconds since the loop ran last, to within `_TICK_S`. For other threads."""
        return time.monotonic() - self._ticked_at

    def _tick(self) -> None:
        now = time.monotonic()
        self._held_up_s += self._late_s(now)
        self._ticked_at = now
        self._loop.call_later(_TICK_S, self._tick)

    def _late_s(self, now: float) -> float:
        late_s = now - self._ticked_at - _TICK_S
        return late_s if late_s > _LATE_S else 0.0


_clocks: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopClock] = WeakKeyDictionary()


def loop_clock() -> LoopClock:
    """The clock of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _clocks:
        _clocks[loop] = LoopClock(loop)
    return _clocks[loop]


@asynccontextmanager
async def running_time_limit(limit_s: float) -> AsyncGenerator[None]:
    """Raises `TimeoutError` if the block takes longer than `limit_s` of the loop's running time."""
    clock, loop = loop_clock(), asyncio.get_running_loop()
    end = clock.now() + limit_s
    async with asyncio.timeout(None) as timeout:
        timers: list[asyncio.TimerHandle] = []

        def check() -> None:
            left_s = end - clock.now()
            if left_s <= 0:
                timeout.reschedule(loop.time())
            else:
                timers[:] = [loop.call_later(left_s, check)]

        timers.append(loop.call_later(limit_s, check))
        try:
            yield
        finally:
            timers[0].cancel()
