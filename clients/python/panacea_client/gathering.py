"""Many answers at a time."""

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
"""Windows hears of Ctrl-C only between two waits."""


async def gather(
    works: Sequence[Callable[[], Awaitable[T]]], concurrency: int, on_result: Callable[[T], object] | None
) -> list[T]:
    """The results in the order of `works`, at most `concurrency` at work at a time.

    `on_result` is called with each one when it is there. The first failure is raised, once all other work has been
    cancelled and has let go of what it held. Raises `ValueError` for a `concurrency` below 1.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}; it takes at least 1 to get anywhere")
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
    """Runs a coroutine in an event loop and a thread of its own, and waits for what it returns or raises.

    Only a coroutine can be stopped while it waits for a server, and the caller may have an event loop already: Jupyter
    has. Anything that interrupts the waiting, Ctrl-C above all, cancels the coroutine, and is raised when that has let
    go of what it held. `make` gets a function that it is to call with each result; `on_result` is called with them in
    the waiting thread.
    """
    reports: SimpleQueue[_Report[T] | None] = SimpleQueue()
    outcome: Future[list[T]] = Future()
    begun: Future[Callable[[], object]] = Future()

    async def work() -> list[T]:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        begun.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
        return await make(lambda result: reports.put(_Report(result)))

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
            with suppress(RuntimeError):  # it has just ended by itself
                begun.result()()
        thread.join()
        raise
    thread.join()
    return outcome.result()


@dataclass(frozen=True)
class _Report(Generic[T]):
    result: T


def _next(reports: "SimpleQueue[_Report[T] | None]") -> "_Report[T] | None":
    while True:
        with suppress(Empty):
            return reports.get(timeout=_POLL_S)
