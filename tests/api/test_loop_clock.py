"""A clock that stands still while the event loop is busy."""

import asyncio
import time

import pytest

from panacea.api.connections.loop_clock import loop_clock, running_time_limit


def test_time_in_which_the_loop_is_held_up_does_not_count() -> None:
    async def run() -> float:
        clock = loop_clock()
        begin = clock.now()
        time.sleep(1)
        return clock.now() - begin

    assert asyncio.run(run()) < 0.3


def test_time_in_which_the_loop_waits_counts() -> None:
    async def run() -> float:
        begin = loop_clock().now()
        await asyncio.sleep(0.5)
        return loop_clock().now() - begin

    assert 0.3 < asyncio.run(run()) < 0.7


def test_a_limit_is_on_running_time_alone() -> None:
    async def run() -> None:
        async with running_time_limit(0.4):
            time.sleep(1)
            await asyncio.sleep(0.1)

    asyncio.run(run())


def test_a_limit_that_is_exceeded_is_a_timeout() -> None:
    async def run() -> None:
        async with running_time_limit(0.1):
            await asyncio.sleep(30)

    with pytest.raises(TimeoutError):
        asyncio.run(run())
