"""Runs many requests concurrently."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_POLL_S = 0.2
"""On Windows, Ctrl-C is only noticed between two waits."""


async def gather(
    works: Sequence[Callable[[], Awaitable[T]]], concurrency: int, on_result: Callable[[T], object] | None
) -> list[T]:
    """The results in the order of `works`. At most `concurrency` run at a time.

    `on_result` is called with each result when it is available. The first failure is raised, after all other work has
    been cancelled and has released its resources. Raises `ValueError` for a `concurrency` below 1.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}, but it must be at least 1")
    room = asyncio.Semaphore(concurrency)

    async def one(work: Callable[[], Awaitable[T]]) -> T:
        async with room:
            result = await work()
        if on_result is not None:
            on_result(result)
        return result

    tasks = [asyncio.create_task(one(work)) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def gather_apart(
    make: Callable[[Callable[[T], object]], Coroutine[Any, Any, list[T]]], on_result: Callable[[T], object] | None
) -> list[T]:
    """Runs a coroutine in an event loop in a thread of its own. Returns its result or raises its error.

    A coroutine can be cancelled while it waits for a server, unlike a thread. It needs its own thread, because the
    caller may already run an event loop, as Jupyter does. Any exception in the waiting thread, such as Ctrl-C, cancels
    the coroutine. It is raised when the coroutine has released its resources. `make` gets a function to call with each
    result. `on_result` is called with these results in the waiting thread.
    """
    reports: SimpleQueue[_Delivery[T] | None] = SimpleQueue()
    outcome: Future[list[T]] = Future()
    begun: Future[Callable[[], object]] = Future()

    async def work() -> list[T]:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        begun.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
        return await make(lambda result: reports.put(_Delivery(result)))

    def run() -> None:
        try:
            outcome.set_result(asyncio.run(work()))
        except BaseException as error:
            outcome.set_exception(error)
            if not begun.done():
                begun.set_exception(error)
        finally:
            reports.put(None)

    thread = threading.Thread(target=run, name="panacea-gather", daemon=True)
    thread.start()
    try:
        while (report := _next(reports)) is not None:
            if on_result is not None:
                on_result(report.result)
    except BaseException:
        if begun.exception() is None:
            with suppress(RuntimeError):  # its event loop has just ended
                begun.result()()
        thread.join()
        raise
    thread.join()
    return outcome.result()


@dataclass(frozen=True)
class _Delivery(Generic[T]):
    result: T


def _next(reports: "SimpleQueue[_Delivery[T] | None]") -> "_Delivery[T] | None":
    while True:
        with suppress(Empty):
            return reports.get(timeout=_POLL_S)
