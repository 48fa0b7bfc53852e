"""Turns a checked request into its answer, whole or as a stream. The routes define the shape of each part."""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Generic, TypedDict, TypeVar

from fastapi import Response
from pydantic import BaseModel

from panacea.api.access.admission import Ticket
from panacea.api.catalog import Catalog, ServedModel
from panacea.api.connections.backlog import Backlog
from panacea.api.connections.event_stream import EventStream, sse
from panacea.api.engine_interface import EngineLike
from panacea.api.error_responses import as_api_error, panics_as_errors
from panacea.api.generation.generation_request import GenerationRequest
from panacea.api.generation.pieces import Arrived, generate
from panacea.api.generation.usage import PromptTokensDetails, Usage
from panacea.engine.request import Request
from panacea.text import Answer, ModelTokens, Piece

Wanted = TypeVar("Wanted", bound=GenerationRequest)


class Head(TypedDict):
    """Fields of a whole answer and of each of its chunks."""

    id: str
    created: int
    model: str
    preference: dict[str, float] | None


def new_head(prefix: str, choice: ServedModel, catalog: Catalog) -> Head:
    """The head of an answer that begins now."""
    return Head(
        id=f"{prefix}-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=choice.model,
        preference=catalog.shown(choice.preference),
    )


@dataclass(frozen=True)
class Job(ABC, Generic[Wanted]):
    """A checked request, and the fields that all parts of its answer share."""

    continues: ClassVar[bool]
    """Whether the answer's text continues the prompt's text, possibly within a sentence, or begins a new text."""

    wanted: Wanted
    requests: tuple[Request, ...]
    """The engine's request for each choice; the choices of the first prompt come first."""
    head: Head

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts, each prompt counted once."""
        return sum(len(request.prompt_ids) for request in self.requests if request.params.choice == 0)

    @property
    def engine_tokens(self) -> int:
        """Prompt tokens that the engine gets. Each choice counts its prompt again."""
        return sum(len(request.prompt_ids) for request in self.requests)

    def new_answer(self, tokens: ModelTokens, request: Request) -> Answer:
        """The text of one choice, before its first token."""
        context = request.prompt_ids if self.continues else ()
        return Answer(tokens, self.wanted.stop or (), request.params.min_tokens, context)

    @abstractmethod
    def whole(self, choices: list[list[Piece]], usage: Usage) -> BaseModel:
        """The answer that does not stream."""

    @abstractmethod
    def opening(self, index: int) -> BaseModel | None:
        """The chunk before a choice's first token; None if the format has none."""

    @abstractmethod
    def part(self, index: int, piece: Piece) -> BaseModel:
        """The chunk that adds a piece to a choice."""

    @abstractmethod
    def closing(self, usage: Usage) -> BaseModel:
        """The chunk after all choices, with the usage."""

    def event(self, chunk: BaseModel) -> bytes:
        hidden = None if self.wanted.includes_usage else {"usage"}
        return sse(chunk.model_dump_json(exclude_unset=True, exclude=hidden).encode())


class _TokenCount:
    """Counts the tokens of a job as its pieces arrive."""

    def __init__(self, job: Job[Wanted], *, shows_cached: bool) -> None:
        self._shows_cached = shows_cached
        self._prompt_tokens = job.prompt_tokens
        self._requests = job.requests
        self._cached_tokens = 0
        self._completion_tokens = 0

    def add(self, choice: int, piece: Piece) -> None:
        self._completion_tokens += piece.tokens
        if self._requests[choice].params.choice == 0:  # each prompt counts once
            self._cached_tokens += piece.cached_tokens

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            total_tokens=self._prompt_tokens + self._completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=self._cached_tokens)
            if self._shows_cached
            else None,
        )


async def respond(engine: EngineLike, tokens: ModelTokens, job: Job[Wanted], ticket: Ticket) -> Response:
    """The answer, whole or as a stream. Before the first byte, raises the engine's errors, and `ApiError` (429) if too
    many requests are waiting, or the key has used up its tokens."""
    ticket.hold_answers(len(job.requests))
    ticket.hold_tokens(job.engine_tokens)
    ticket.charge_tokens(job.engine_tokens)
    backlog = Backlog[Arrived](ticket.limits.max_unread_tokens * len(job.requests))
    pieces = generate(engine, job.requests, partial(job.new_answer, tokens), ticket, backlog)
    if not job.wanted.stream:
        return await _complete(job, pieces, ticket)
    # The status line is sent after the first token, so an error before it can still be a 400 or 503.
    first = await anext(pieces)
    return EventStream(_events(job, first, pieces, ticket), pieces, backlog)


async def _complete(job: Job[Wanted], pieces: AsyncGenerator[tuple[int, Piece]], ticket: Ticket) -> Response:
    choices: list[list[Piece]] = [[] for _ in job.requests]
    count = _TokenCount(job, shows_cached=not ticket.limits.hide_cached_tokens)
    async for choice, piece in pieces:
        choices[choice].append(piece)
        count.add(choice, piece)
    whole = job.whole(choices, count.usage)
    return Response(whole.model_dump_json(), media_type="application/json")


async def _events(
    job: Job[Wanted], first: tuple[int, Piece], rest: AsyncGenerator[tuple[int, Piece]], ticket: Ticket
) -> AsyncGenerator[bytes]:
    count = _TokenCount(job, shows_cached=not ticket.limits.hide_cached_tokens)
    try:
        with panics_as_errors():
            for index in range(len(job.requests)):
                if opening := job.opening(index):
                    yield job.event(opening)
            async with aclosing(_chain(first, rest)) as pieces:
                async for index, piece in pieces:
                    count.add(index, piece)
                    if piece.text or piece.logprobs or piece.prompt_logprobs is not None or piece.finish_reason:
                        yield job.event(job.part(index, piece))
            if job.wanted.includes_usage:
                yield job.event(job.closing(count.usage))
            yield sse(b"[DONE]")
    # The status line is sent already, so the stream must carry any error.
    except Exception as error:
        yield sse(as_api_error(error).body(), "error")


async def _chain(
    first: tuple[int, Piece], rest: AsyncGenerator[tuple[int, Piece]]
) -> AsyncGenerator[tuple[int, Piece]]:
    yield first
    async for item in rest:
        yield item
