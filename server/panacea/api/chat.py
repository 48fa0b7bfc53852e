"""`POST /v1/chat/completions`."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from panacea.api.body import read_json
from panacea.api.catalog import Catalog
from panacea.api.chat_request import ChatRequest
from panacea.api.chat_response import (
    AssistantMessage,
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    Delta,
    Usage,
    choice_logprobs,
)
from panacea.api.engine import EngineLike
from panacea.api.errors import ApiError, as_api_error, error_docs
from panacea.api.event_stream import EventStream, sse
from panacea.api.generation import Generation, generate
from panacea.api.sampling import sampling_params
from panacea.text import ModelText, Piece

_LONG_PROMPT_CHARS = 20_000
"""From here on a prompt is encoded in a thread: 1 us a character, during which nobody else would be served."""


@dataclass(frozen=True)
class _Job:
    """A checked request, and what all of its answer's parts have in common."""

    chat: ChatRequest
    generation: Generation
    id: str
    created: int
    model: str
    preference: dict[str, float] | None

    @property
    def prompt_tokens(self) -> int:
        return len(self.generation.prompt_ids)

    def usage(self, completion_tokens: int) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=self.prompt_tokens + completion_tokens,
        )

    def chunk(self, choices: list[ChunkChoice], usage: Usage | None = None) -> bytes:
        chunk = ChatCompletionChunk(
            id=self.id,
            object="chat.completion.chunk",
            created=self.created,
            model=self.model,
            preference=self.preference,
            choices=choices,
            usage=usage,
        )
        hidden = None if _includes_usage(self.chat) else {"usage"}
        return sse(chunk.model_dump_json(exclude_unset=True, exclude=hidden).encode())


def chat_router(max_body_bytes: int, engine: EngineLike, text: ModelText, catalog: Catalog) -> APIRouter:
    """The route, over these parts."""
    router = APIRouter(tags=["chat"])

    async def prepare(chat: ChatRequest) -> _Job:
        choice = catalog.choose(chat.model, chat.preference)
        messages = [message.as_chat_message() for message in chat.messages]
        if sum(len(message.content) for message in messages) > _LONG_PROMPT_CHARS:
            prompt_ids = await asyncio.to_thread(text.prompt_ids, messages)
        else:
            prompt_ids = text.prompt_ids(messages)
        params = sampling_params(chat, text.defaults, engine.info, len(prompt_ids))
        return _Job(
            chat=chat,
            generation=Generation(prompt_ids, choice.preference, params, tuple(chat.stop or ())),
            id=f"chatcmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=choice.model,
            preference=catalog.shown(choice.preference),
        )

    @router.post(
        "/v1/chat/completions",
        summary="Continue a conversation, with a preference",
        response_model=ChatCompletion,
        responses={
            200: {"content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/ChatCompletionChunk"}}}},
            **error_docs(400, 401, 404, 413, 415, 421, 503),
        },
        openapi_extra={"requestBody": _request_body(catalog)},
    )
    async def create_chat_completion(request: Request) -> Response:
        """OpenAI's chat completions. `preference` says what the answer should be like; weights are relative.

        With `stream: true` the answer arrives as server-sent events, each a chunk, and ends with `data: [DONE]`.
        """
        try:
            chat = await read_json(request, ChatRequest, max_body_bytes)
        except ApiError as error:
            raise catalog.explained(error) from None
        job = await prepare(chat)
        pieces = generate(engine, text, job.generation)
        if not job.chat.stream:
            completion = await _complete(job, pieces)
            return Response(completion.model_dump_json(), media_type="application/json")
        # Waiting for the first token keeps the status open: until then an error is a 400 or 503.
        first = await anext(pieces)
        return EventStream(_events(job, first, pieces), pieces)

    return router


async def _complete(job: _Job, pieces: AsyncGenerator[tuple[int, Piece]]) -> ChatCompletion:
    choices: list[list[Piece]] = [[] for _ in job.generation.params]
    async for choice, piece in pieces:
        choices[choice].append(piece)
    return ChatCompletion(
        id=job.id,
        created=job.created,
        model=job.model,
        preference=job.preference,
        choices=[_choice(job, index, pieces_of_one) for index, pieces_of_one in enumerate(choices)],
        usage=job.usage(sum(map(len, choices))),
    )


def _choice(job: _Job, index: int, pieces: list[Piece]) -> Choice:
    finish_reason = pieces[-1].finish_reason
    assert finish_reason is not None
    return Choice(
        index=index,
        message=AssistantMessage(content="".join(piece.text for piece in pieces)),
        logprobs=choice_logprobs(pieces) if job.chat.logprobs else None,
        finish_reason=finish_reason,
    )


async def _events(
    job: _Job, first: tuple[int, Piece], rest: AsyncGenerator[tuple[int, Piece]]
) -> AsyncGenerator[bytes]:
    completion_tokens = 0
    try:
        for index in range(len(job.generation.params)):
            opening = Delta(role="assistant", content="")
            yield job.chunk([ChunkChoice(index=index, delta=opening, logprobs=None, finish_reason=None)])
        async with aclosing(_chain(first, rest)) as pieces:
            async for index, piece in pieces:
                completion_tokens += 1
                if choice := _chunk_choice(job, index, piece):
                    yield job.chunk([choice])
        if _includes_usage(job.chat):
            yield job.chunk([], job.usage(completion_tokens))
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


def _chunk_choice(job: _Job, index: int, piece: Piece) -> ChunkChoice | None:
    """The piece as a chunk shows it; None if it has nothing to show."""
    if not (piece.text or piece.logprobs or piece.finish_reason):
        return None
    return ChunkChoice(
        index=index,
        delta=Delta(content=piece.text) if piece.text else Delta(),
        logprobs=choice_logprobs([piece]) if job.chat.logprobs else None,
        finish_reason=piece.finish_reason,
    )


def _includes_usage(chat: ChatRequest) -> bool:
    return chat.stream_options is not None and bool(chat.stream_options.include_usage)


def _request_body(catalog: Catalog) -> dict[str, Any]:
    prompts = catalog.space.example_prompts if catalog.space else ()
    example: dict[str, Any] = {
        "model": catalog.name,
        "messages": [{"role": "user", "content": prompts[0] if prompts else "Hello"}],
    }
    if catalog.space:
        example["preference"] = catalog.space.as_dict(catalog.space.default)
    schema = {"$ref": "#/components/schemas/ChatRequest"}
    return {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}
