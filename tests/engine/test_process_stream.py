"""The handle of an answer in another process, without the process."""

import asyncio

import pytest

from panacea.engine.client import ProcessStream
from panacea.engine.outputs import TokenOutput
from panacea.errors import RequestFailedError


def test_closing_wakes_the_task_that_waits_for_a_token_and_ends_the_request_once() -> None:
    aborted: list[bool] = []

    async def run() -> list[int]:
        stream = ProcessStream(lambda: aborted.append(True))

        async def read() -> list[int]:
            return [token.token_id async for token in stream]

        reader = asyncio.create_task(read())
        stream.deliver(TokenOutput("0", 7))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        stream.close()
        stream.close()
        return await asyncio.wait_for(reader, 5)

    assert asyncio.run(run()) == [7]
    assert aborted == [True]


def test_a_stream_that_has_ended_is_not_ended_again_and_gives_no_more() -> None:
    aborted: list[bool] = []

    async def run() -> list[int]:
        stream = ProcessStream(lambda: aborted.append(True))
        stream.deliver(TokenOutput("0", 7, "length"))
        assert stream.ended
        tokens = [token.token_id async for token in stream]
        stream.close()
        return [*tokens, *[token.token_id async for token in stream]]

    assert asyncio.run(run()) == [7]
    assert aborted == []


def test_an_error_ends_the_stream() -> None:
    async def run() -> None:
        stream = ProcessStream(lambda: None)
        stream.deliver(RequestFailedError("made up"))
        with pytest.raises(RequestFailedError, match="made up"):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    asyncio.run(run())
