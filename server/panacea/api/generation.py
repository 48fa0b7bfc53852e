"""A request's `n` answers, generated side by side."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from panacea.api.engine import EngineLike
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import EngineError
from panacea.preference import Preference
from panacea.text import Answer, ModelText, Piece


@dataclass(frozen=True)
class Generation:
    """What the engine is asked for: one request per element of `params`."""

    prompt_ids: list[int]
    preference: Preference | None
    params: tuple[SamplingParams, ...]
    stops: tuple[str, ...]


async def generate(engine: EngineLike, text: ModelText, generation: Generation) -> AsyncGenerator[tuple[int, Piece]]:
    """Each token's choice and what it adds to that choice, until all are finished.

    Raises what the engine raises. Closing the generator, or an error in one choice, ends all engine requests at once.
    """
    arrived: asyncio.Queue[tuple[int, Piece | Exception]] = asyncio.Queue()

    async def run(choice: int) -> None:
        try:
            async for piece in _pieces(engine, text, generation, choice):
                arrived.put_nowait((choice, piece))
        except Exception as error:
            arrived.put_nowait((choice, error))

    tasks = [asyncio.create_task(run(choice)) for choice in range(len(generation.params))]
    unfinished = len(tasks)
    try:
        while unfinished:
            choice, piece = await arrived.get()
            if isinstance(piece, Exception):
                raise piece
            if piece.finish_reason is not None:
                unfinished -= 1
            yield choice, piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pieces(engine: EngineLike, text: ModelText, generation: Generation, choice: int) -> AsyncGenerator[Piece]:
    params = generation.params[choice]
    answer = Answer(text, generation.stops, params.min_tokens)
    async with aclosing(engine.generate(generation.prompt_ids, generation.preference, params)) as outputs:
        async for output in outputs:
            piece = answer.push(output)
            yield piece
            if piece.finish_reason is not None:
                return
    raise EngineError("an answer broke off")
