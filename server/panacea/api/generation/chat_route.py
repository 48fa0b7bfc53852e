"""`POST /v1/chat/completions`."""

from fastapi import APIRouter, Request, Response

from panacea.api.access.admission import ticket_of
from panacea.api.catalog import Catalog
from panacea.api.engine_interface import EngineLike
from panacea.api.generation.chat_request import ChatRequest
from panacea.api.generation.chat_response import (
    AssistantMessage,
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    Delta,
    choice_logprobs,
)
from panacea.api.generation.engine_requests import engine_requests
from panacea.api.generation.generation_docs import example_prompt, generation_docs, request_docs
from panacea.api.generation.generation_request import read_generation_request
from panacea.api.generation.job import Job, new_head, respond
from panacea.api.generation.template_kwargs import check_template_kwargs
from panacea.api.generation.text_work import check_schema, most_chars, perform
from panacea.api.generation.usage import Usage
from panacea.config import Limits
from panacea.text import Piece
from panacea.text.jobs import EncodeConversation, template_json
from panacea.text.pool import TextService
from panacea.text.schema_checks import SchemaChecks


class _ChatJob(Job[ChatRequest]):
    continues = False

    def whole(self, choices: list[list[Piece]], usage: Usage) -> ChatCompletion:
        return ChatCompletion(
            **self.head,
            choices=[self._choice(index, pieces) for index, pieces in enumerate(choices)],
            usage=usage,
        )

    def opening(self, index: int) -> ChatCompletionChunk:
        opening = Delta(role="assistant", content="")
        return self._chunk([ChunkChoice(index=index, delta=opening, logprobs=None, finish_reason=None)])

    def part(self, index: int, piece: Piece) -> ChatCompletionChunk:
        choice = ChunkChoice(
            index=index,
            delta=Delta(content=piece.text) if piece.text else Delta(),
            logprobs=choice_logprobs([piece]) if self.wanted.logprobs else None,
            finish_reason=piece.finish_reason,
        )
        return self._chunk([choice])

    def closing(self, usage: Usage) -> ChatCompletionChunk:
        return self._chunk([], usage)

    def _choice(self, index: int, pieces: list[Piece]) -> Choice:
        finish_reason = pieces[-1].finish_reason
        assert finish_reason is not None
        return Choice(
            index=index,
            message=AssistantMessage(content="".join(piece.text for piece in pieces)),
            logprobs=choice_logprobs(pieces) if self.wanted.logprobs else None,
            finish_reason=finish_reason,
        )

    def _chunk(self, choices: list[ChunkChoice], usage: Usage | None = None) -> ChatCompletionChunk:
        return ChatCompletionChunk(**self.head, object="chat.completion.chunk", choices=choices, usage=usage)


def chat_router(
    limits: Limits, engine: EngineLike, text: TextService, catalog: Catalog, schemas: SchemaChecks
) -> APIRouter:
    """A router with the chat completions route."""
    router = APIRouter(tags=["chat"])

    async def prepare(http: Request, chat: ChatRequest) -> _ChatJob:
        choice = catalog.choose(chat.model, chat.preference)
        messages = [message.as_chat_message() for message in chat.messages]
        check_template_kwargs(chat.chat_template_kwargs, text.template_variables)
        max_chars = most_chars(engine.info, text.tokens)
        encoding = EncodeConversation(messages, template_json(chat.chat_template_kwargs), max_chars)
        prompt_ids = await perform(text, http, encoding)
        await check_schema(schemas, http, chat.json_schema)
        defaults = text.tokens.defaults
        requests = engine_requests(http, chat, choice.preference, [prompt_ids], defaults, engine.info, limits)
        return _ChatJob(chat.without_content(), requests, new_head("chatcmpl", choice, catalog))

    @router.post(
        "/v1/chat/completions",
        summary="Continue a conversation, with a preference",
        response_model=ChatCompletion,
        responses=generation_docs(ChatCompletionChunk),
        openapi_extra=request_docs(
            ChatRequest,
            catalog,
            [{"role": "user", "content": example_prompt(catalog)}],
            {
                "Two drawn answers, with log probabilities": {
                    "n": 2,
                    "temperature": 0.7,
                    "top_p": 0.9,
                    "seed": 1,
                    "logprobs": True,
                    "top_logprobs": 3,
                    "max_tokens": 32,
                }
            },
        ),
    )
    async def create_chat_completion(request: Request) -> Response:
        """OpenAI's chat completions. `preference` weighs the adapter's dimensions; weights are relative.

        With `stream: true` the answer arrives as server-sent events. Each event is a chunk; the last is `data: [DONE]`.
        """
        # No variable holds the parsed body while the request waits.
        job = await prepare(
            request, await read_generation_request(request, ChatRequest, limits.max_body_bytes, catalog)
        )
        return await respond(engine, text.tokens, job, ticket_of(request))

    return router
