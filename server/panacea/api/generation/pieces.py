"""Generates all choices of a request concurrently."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import closing

from panacea.api.access.admission import Ticket
from panacea.api.access.deadlines import Deadlines
from panacea.api.connections.backlog import Backlog
from panacea.api.engine_interface import EngineLike
from panacea.api.error_responses import panics_as_errors
from panacea.engine.request import Request
from panacea.errors import EngineError, QueueTimeoutError
from panacea.text import Answer, Piece

Arrived = tuple[int, Piece | Exception]
"""The index of a choice, and its next piece or the error that ended it."""


async def generate(
    engine: EngineLike,
    requests: Sequence[Request],
    new_answer: Callable[[Request], Answer],
    ticket: Ticket,
    arrived: Backlog[Arrived],
) -> AsyncGenerator[tuple[int, Piece]]:
    """Yields (choice, piece) for each token, until all choices are finished.

    Choice i is the answer to `requests[i]`. Pieces that the reader has not taken yet wait in `arrived`. Raises the
    engine's errors, and `ApiError` if a limit of the ticket ends the request. Closing the generator ends all requests
    in the engine at once. An error in one choice does the same.
    """

    async def run(choice: int, request: Request) -> None:
        try:
            with panics_as_errors(), closing(engine.open(request)) as tokens:
                answer = new_answer(request)
                async for token in tokens:
                    piece = answer.push(token)
                    ticket.spend_tokens(piece.tokens)
                    arrived.put((choice, piece))
                    if piece.finish_reason is not None:  # set by the engine, or by a stop string
                        return
            raise EngineError("the engine's stream ended before the answer was complete")
        except Exception as error:
            arrived.put((choice, error))

    tasks = [asyncio.create_task(run(choice, request)) for choice, request in enumerate(requests)]
    unfinished = len(tasks)
    try:
        with Deadlines(ticket, lambda error: arrived.put((0, error))) as deadlines:
            while unfinished:
                choice, piece = await arrived.get()
                if isinstance(piece, QueueTimeoutError):
                    raise ticket.too_late(str(piece))
                if isinstance(piece, Exception):
                    raise piece
                deadlines.first_token()
                if piece.finish_reason is not None:
                    unfinished -= 1
                yield choice, piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
