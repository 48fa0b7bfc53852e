"""The answers to a request's prompts, generated side by side."""

import asyncio
import itertools
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

from panacea.api.access.admission import Ticket
from panacea.api.access.deadlines import Deadlines
from panacea.api.connections.backlog import Backlog
from panacea.api.engine_interface import EngineLike
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import EngineError, QueueTimeoutError
from panacea.preference import Preference
from panacea.text import Answer, ModelText, Piece


class Prompt(NamedTuple):
    """One prompt, and how each of its answers is sampled."""

    ids: list[int]
    params: tuple[SamplingParams, ...]


@dataclass(frozen=True)
class Generation:
    """What the engine is asked for: one request per prompt and element of its `params`."""

    prompts: tuple[Prompt, ...]
    preference: Preference | None
    stops: tuple[str, ...]
    continues: bool
    """Whether an answer's text goes on where its prompt's ends, as in the middle of a sentence, or begins anew."""
    cache_salt: str
    """Prefixes are shared with requests of the same salt alone."""

    @property
    def prompt_tokens(self) -> int:
        return sum(len(prompt.ids) for prompt in self.prompts)

    @property
    def engine_tokens(self) -> int:
        """Prompt tokens that the engine is given: each answer's request brings its own."""
        return sum(len(prompt.ids) * len(prompt.params) for prompt in self.prompts)

    @property
    def choices(self) -> int:
        """How many answers; those to the first prompt come first."""
        return sum(len(prompt.params) for prompt in self.prompts)

    @property
    def first_choices(self) -> frozenset[int]:
        """The first answer to each prompt."""
        ends = itertools.accumulate((len(prompt.params) for prompt in self.prompts[:-1]), initial=0)
        return frozenset(ends)


Arrived = tuple[int, Piece | Exception]
"""A choice, and its next piece or what ended it."""


async def generate(
    engine: EngineLike, text: ModelText, generation: Generation, ticket: Ticket, arrived: Backlog[Arrived]
) -> AsyncGenerator[tuple[int, Piece]]:
    """Each token's choice and what it adds to that choice, until all are finished. What nobody has taken yet waits in
    `arrived`.

    Raises what the engine raises, and `ApiError` where the ticket's limits end the request. Closing the generator, or
    an error in one choice, ends all engine requests at once.
    """

    async def run(choice: int, prompt_ids: list[int], params: SamplingParams) -> None:
        try:
            async for piece in _pieces(engine, text, generation, prompt_ids, params, ticket.tenant):
                arrived.put((choice, piece))
        except Exception as error:
            arrived.put((choice, error))

    requests = [(prompt.ids, params) for prompt in generation.prompts for params in prompt.params]
    tasks = [asyncio.create_task(run(choice, *request)) for choice, request in enumerate(requests)]
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


async def _pieces(
    engine: EngineLike,
    text: ModelText,
    generation: Generation,
    prompt_ids: list[int],
    params: SamplingParams,
    tenant: str,
) -> AsyncGenerator[Piece]:
    answer = Answer(text, generation.stops, params.min_tokens, prompt_ids if generation.continues else ())
    tokens = engine.generate(prompt_ids, generation.preference, params, generation.cache_salt, tenant)
    async with aclosing(tokens) as outputs:
        async for output in outputs:
            piece = answer.push(output)
            yield piece
            if piece.finish_reason is not None:
                return
    raise EngineError("an answer broke off")
