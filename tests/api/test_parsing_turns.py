"""ParsingTurns at work that holds up the event loop."""

import asyncio

import pytest

from panacea.api.connections.parsing_turns import ParsingTurns


async def takes_turns(turns: ParsingTurns, tenant: str, log: list[str]) -> None:
    async with turns.turn(tenant):
        log.append(tenant)
        await asyncio.sleep(0)
        assert log[-1] == tenant  # nobody else had a turn meanwhile


def test_tenants_take_turns_however_much_one_of_them_waits_for() -> None:
    async def run() -> list[str]:
        turns, log = ParsingTurns(), list[str]()
        await asyncio.gather(*(takes_turns(turns, tenant, log) for tenant in "aaaaaabbc"))
        return log

    assert "".join(asyncio.run(run())) == "aabcabaaa"


def test_whoever_leaves_the_queue_holds_up_nobody() -> None:
    async def run() -> list[str]:
        turns, log = ParsingTurns(), list[str]()
        tasks = [asyncio.create_task(takes_turns(turns, tenant, log)) for tenant in "abcabc"]
        await asyncio.sleep(0)
        for number in (0, 1, 4):  # one has its turn, the others wait
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wait_for(takes_turns(turns, "d", log), 5)
        return log

    assert "".join(asyncio.run(run())) == "acacd"


def test_a_turn_ends_with_an_error_too() -> None:
    async def run() -> None:
        turns, log = ParsingTurns(), list[str]()
        with pytest.raises(ValueError, match="oh"):
            async with turns.turn("a"):
                raise ValueError("oh")
        await asyncio.wait_for(takes_turns(turns, "a", log), 5)

    asyncio.run(run())
