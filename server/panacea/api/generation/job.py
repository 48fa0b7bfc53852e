"""From a checked request to its answer, whole or as a stream; the routes say what each part of it looks like."""

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypedDict, TypeVar

from fastapi import Response
from pydantic import BaseModel

from panacea.api.access.admission import Ticket
from panacea.api.catalog import Catalog, Choice
from panacea.api.connections.backlog import Backlog
from panacea.api.connections.event_stream import EventStream, sse
from panacea.api.engine_interface import EngineLike
from panacea.api.error_responses import as_api_error
from panacea.api.generation.generation_request import GenerationRequest
from panacea.api.generation.pieces import Arrived, Generation, generate
from panacea.api.generation.usage import PromptTokensDetails, Usage
from panacea.text import ModelText, Piece

_LONG_PROMPT_CHARS = 20_000
"""From here on a prompt is encoded in a thread: 1 us a character, during which nobody else would be served."""

Encoded = TypeVar("Encoded")
Wanted = TypeVar("Wanted", bound=GenerationRequest)


class Head(TypedDict):
    """What a whole answer and each of its chunks carry."""

    id: str
    created: int
    model: str
    preference: dict[str, float] | None


def new_head(prefix: str, choice: Choice, catalog: Catalog) -> Head:
    """The head of an answer that begins now."""
    return Head(
        id=f"{prefix}-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=choice.model,
        preference=catalog.shown(choice.preference),
    )


async def encoded(encode: Callable[[], Encoded], chars: int) -> Encoded:
    """What `encode` makes of so many characters; others are served meanwhile if they are many."""
    return await asyncio.to_thread(encode) if chars > _LONG_PROMPT_CHARS else encode()


@dataclass(frozen=True)
class Job(ABC, Generic[Wanted]):
    """A checked request, and what all of its answer's parts have in common."""

    request: Wanted
    generation: Generation
    head: Head

    @abstractmethod
    def whole(self, choices: list[list[Piece]], usage: Usage) -> BaseModel:
        """The answer that does not stream."""

    @abstractmethod
    def opening(self, index: int) -> BaseModel | None:
        """The chunk that opens a choice, if there is anything to say before its first token."""

    @abstractmethod
    def part(self, index: int, piece: Piece) -> BaseModel:
        """The chunk that adds a piece to a choice."""

    @abstractmethod
    def closing(self, usage: Usage) -> BaseModel:
        """The chunk behind all choices."""

    def event(self, chunk: BaseModel) -> bytes:
        hidden = None if self.request.includes_usage else {"usage"}
        return sse(chunk.model_dump_json(exclude_unset=True, exclude=hidden).encode())


class _Count:
    """The tokens of a generation as its pieces come."""

    def __init__(self, generation: Generation) -> None:
        self._prompt_tokens = generation.prompt_tokens
        self._first_choices = generation.first_choices
        self._cached_tokens = 0
        self._completion_tokens = 0

    def add(self, choice: int, piece: Piece) -> None:
        self._completion_tokens += piece.tokens
        if choice in self._first_choices:
            self._cached_tokens += piece.cached_tokens

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            total_tokens=self._prompt_tokens + self._completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=self._cached_tokens),
        )


async def respond(engine: EngineLike, text: ModelText, job: Job[Wanted], ticket: Ticket) -> Response:
    """The answer as the request wants it. Raises what the engine raises before the answer's first byte, and `ApiError`
    (429) where there is no room for it to wait in."""
    ticket.hold_answers(job.generation.choices)
    ticket.hold_tokens(job.generation.engine_tokens)
    backlog = Backlog[Arrived](ticket.limits.max_unread_tokens * job.generation.choices)
    pieces = generate(engine, text, job.generation, ticket, backlog)
    if not job.request.stream:
        return await _complete(job, pieces)
    # Waiting for the first token keeps the status open: until then an error is a 400 or 503.
    first = await anext(pieces)
    return EventStream(_events(job, first, pieces), pieces, backlog)


async def _complete(job: Job[Wanted], pieces: AsyncGenerator[tuple[int, Piece]]) -> Response:
    choices: list[list[Piece]] = [[] for _ in range(job.generation.choices)]
    count = _Count(job.generation)
    async for choice, piece in pieces:
        choices[choice].append(piece)
        count.add(choice, piece)
    whole = job.whole(choices, count.usage)
    return Response(whole.model_dump_json(), media_type="application/json")


async def _events(
    job: Job[Wanted], first: tuple[int, Piece], rest: AsyncGenerator[tuple[int, Piece]]
) -> AsyncGenerator[bytes]:
    count = _Count(job.generation)
    try:
        for index in range(job.generation.choices):
            if opening := job.opening(index):
                yield job.event(opening)
        async with aclosing(_chain(first, rest)) as pieces:
            async for index, piece in pieces:
                count.add(index, piece)
                if piece.text or piece.logprobs or piece.prompt_logprobs is not None or piece.finish_reason:
                    yield job.event(job.part(index, piece))
        if job.request.includes_usage:
            yield job.event(job.closing(count.usage))
        yield sse(b"[DONE]")
    # The status is out, so an error of any kind can only be told here.
    except Exception as error:
        yield sse(as_api_error(error).body(), "error")


async def _chain(
    first: tuple[int, Piece], rest: AsyncGenerator[tuple[int, Piece]]
) -> AsyncGenerator[tuple[int, Piece]]:
    yield first
    async for item in rest:
        yield item
