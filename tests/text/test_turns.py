"""Tenants take turns; short jobs never wait for long ones."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from panacea.text.turns import Turns


class Jobs:
    """Jobs that hold their places until they are told to end."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.running: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def begin(self, name: str, *, is_long: bool = False) -> None:
        """A job of the tenant whose name is the first character."""
        self._ends[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._run(name, is_long))
        await settle()

    async def _run(self, name: str, is_long: bool) -> None:
        async with self.turns.turn(name[0], is_long=is_long):
            self.running.append(name)
            await self._ends[name].wait()
            self.running.remove(name)

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self._tasks[name]
        await settle()

    async def cancel(self, *names: str) -> None:
        for name in names:
            self._tasks[name].cancel()
        await asyncio.gather(*(self._tasks[name] for name in names), return_exceptions=True)
        self.running = [name for name in self.running if name not in names]
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(test: Callable[[Jobs], Awaitable[None]], places: int = 2, *, shared: bool = True) -> None:
    async def whole() -> None:
        jobs = Jobs(Turns(places, is_shared=lambda: shared))
        await test(jobs)
        await jobs.cancel(*jobs._tasks)  # pyright: ignore[reportPrivateUsage]
        assert jobs.turns.waiting == 0
        assert not vars(jobs.turns)["_held"]

    asyncio.run(whole())


def test_a_tenant_leaves_a_place_to_another() -> None:
    async def test(jobs: Jobs) -> None:
        for name in ("a1", "a2", "a3"):
            await jobs.begin(name)
        assert jobs.running == ["a1"]
        await jobs.begin("b1")
        assert jobs.running == ["a1", "b1"]

    run(test)


def test_one_tenant_alone_has_all_places() -> None:
    async def test(jobs: Jobs) -> None:
        for name in ("a1", "a2", "a3"):
            await jobs.begin(name)
        assert jobs.running == ["a1", "a2"]

    run(test, shared=False)


def test_tenants_take_turns() -> None:
    async def test(jobs: Jobs) -> None:
        for name in ("a1", "b1", "a2", "a3", "a4", "c1", "c2"):
            await jobs.begin(name)
        assert jobs.running == ["a1", "b1"]
        await jobs.end("b1")
        await jobs.end("a1")
        assert sorted(jobs.running) == ["a2", "c1"]
        await jobs.end("c1")
        assert sorted(jobs.running) == ["a2", "c2"]

    run(test)


def test_long_jobs_leave_a_place_to_short_ones() -> None:
    async def test(jobs: Jobs) -> None:
        for name in ("a1", "a2", "b1"):
            await jobs.begin(name, is_long=True)
        assert jobs.running == ["a1"]
        await jobs.begin("a3")
        assert jobs.running == ["a1", "a3"]

    run(test, shared=False)


def test_a_tenants_long_jobs_leave_a_place_to_anothers_long_job() -> None:
    async def test(jobs: Jobs) -> None:
        for name in ("a1", "a2", "a3"):
            await jobs.begin(name, is_long=True)
        assert jobs.running == ["a1"]
        await jobs.begin("b1", is_long=True)
        assert jobs.running == ["a1", "b1"]
        await jobs.begin("c1", is_long=True)
        await jobs.begin("d1")
        assert jobs.running == ["a1", "b1", "d1"]

    run(test, places=3)


@pytest.mark.parametrize("names", [["a2"], ["a1"], ["a1", "a2"], ["a2", "a3"]])
def test_who_goes_away_takes_and_keeps_no_place(names: list[str]) -> None:
    async def test(jobs: Jobs) -> None:
        for name in ("a1", "a2", "a3", "a4"):
            await jobs.begin(name)
        await jobs.cancel(*names)
        left = [name for name in ("a1", "a2", "a3", "a4") if name not in names]
        assert jobs.running == left[:1]
        assert jobs.turns.waiting == len(left) - 1

    run(test)


def test_who_gets_a_place_while_going_away_gives_it_back() -> None:
    async def test(jobs: Jobs) -> None:
        await jobs.begin("a1")
        await jobs.begin("a2")
        ending = asyncio.create_task(jobs.end("a1"))
        await asyncio.sleep(0)
        await jobs.cancel("a2")
        await ending
        await jobs.begin("a3")
        assert jobs.running == ["a3"]

    run(test)
