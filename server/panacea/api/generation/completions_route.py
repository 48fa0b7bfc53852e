"""`POST /v1/completions`."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from panacea.api.access.admission import ticket_of
from panacea.api.catalog import Catalog
from panacea.api.engine_interface import EngineLike
from panacea.api.error_responses import ApiError
from panacea.api.generation.completion_request import CompletionRequest
from panacea.api.generation.completion_response import (
    TextChoice,
    TextCompletion,
    TextLogprobs,
    text_logprobs,
    with_prompt,
)
from panacea.api.generation.engine_requests import engine_requests
from panacea.api.generation.generation_docs import example_prompt, generation_docs, request_docs
from panacea.api.generation.generation_request import read_generation_request
from panacea.api.generation.job import Job, new_head, respond
from panacea.api.generation.text_work import check_length, check_schema, perform
from panacea.api.generation.usage import Usage
from panacea.config import Limits
from panacea.text import ModelTokens, Piece
from panacea.text.jobs import EchoedPrompt, EchoPrompts, EncodeTexts, packed
from panacea.text.pool import TextService
from panacea.text.schema_checks import SchemaChecks


@dataclass(frozen=True)
class _CompletionJob(Job[CompletionRequest]):
    continues = True

    tokens: ModelTokens
    echoes: list[EchoedPrompt]
    """One for each choice."""

    def whole(self, choices: list[list[Piece]], usage: Usage) -> TextCompletion:
        texts = [self.echoes[index].text + _text(pieces) for index, pieces in enumerate(choices)]
        return self._completion(
            [self._choice(index, texts[index], pieces) for index, pieces in enumerate(choices)], usage
        )

    def opening(self, index: int) -> TextCompletion | None:
        # A scored prompt is sent with its scores, which arrive with the first piece.
        if not self.wanted.echo or self.wanted.scores_prompt:
            return None
        return self._completion([self._choice(index, self.echoes[index].text, [])])

    def part(self, index: int, piece: Piece) -> TextCompletion:
        echo = self.echoes[index].text if piece.prompt_logprobs is not None else ""
        return self._completion([self._choice(index, echo + piece.text, [piece])])

    def closing(self, usage: Usage) -> TextCompletion:
        return self._completion([], usage)

    def _choice(self, index: int, text: str, pieces: list[Piece]) -> TextChoice:
        return TextChoice(
            index=index,
            text=text,
            logprobs=self._logprobs(self.echoes[index], pieces) if self.wanted.logprobs is not None else None,
            finish_reason=pieces[-1].finish_reason if pieces else None,
        )

    def _logprobs(self, echo: EchoedPrompt, pieces: list[Piece]) -> TextLogprobs:
        answer = text_logprobs([token for piece in pieces for token in piece.logprobs], len(echo.text))
        scores = pieces[0].prompt_logprobs if pieces else None
        if scores is None or echo.tokens is None:
            return answer
        return with_prompt(echo.tokens.tokens[0], echo.tokens.logprobs(self.tokens, scores), answer)

    def _completion(self, choices: list[TextChoice], usage: Usage | None = None) -> TextCompletion:
        return TextCompletion(**self.head, object="text_completion", choices=choices, usage=usage)


def _text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def completions_router(
    limits: Limits, engine: EngineLike, text: TextService, catalog: Catalog, schemas: SchemaChecks
) -> APIRouter:
    """A router with the completions route."""
    router = APIRouter(tags=["completions"])

    async def prepare(http: Request, wanted: CompletionRequest) -> _CompletionJob:
        choice = catalog.choose(wanted.model, wanted.preference)
        await check_schema(schemas, http, wanted.json_schema)
        prompts = await prompt_ids(http, wanted.prompt)
        defaults = text.tokens.defaults
        requests = engine_requests(http, wanted, choice.preference, prompts, defaults, engine.info, limits)
        head = new_head("cmpl", choice, catalog)
        return _CompletionJob(
            wanted.without_content(), requests, head, text.tokens, await echoes(http, wanted, prompts)
        )

    async def prompt_ids(http: Request, prompts: list[str] | list[list[int]]) -> list[list[int]]:
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]
        if not texts:
            ids = [prompt for prompt in prompts if not isinstance(prompt, str)]
            if max(map(max, ids)) >= engine.info.vocab_size:
                raise ApiError(400, f"prompt: token ids must be below {engine.info.vocab_size}", "prompt")
            return ids
        check_length(max(map(len, texts)), engine.info, text.tokens)
        encoded = await perform(text, http, EncodeTexts(texts))
        if not all(encoded):
            raise ApiError(400, "prompt must not be empty: this model has no beginning-of-sequence token", "prompt")
        return encoded

    async def echoes(http: Request, wanted: CompletionRequest, prompts: Sequence[list[int]]) -> list[EchoedPrompt]:
        """One for each choice."""
        if not wanted.echo:
            return [EchoedPrompt("", None)] * (len(prompts) * (wanted.n or 1))
        texts = [prompt if isinstance(prompt, str) else None for prompt in wanted.prompt]
        pairs = list(zip(texts, map(packed, prompts), strict=True))
        each = await perform(text, http, EchoPrompts(pairs, wanted.scores_prompt))
        return [one for one in each for _ in range(wanted.n or 1)]

    @router.post(
        "/v1/completions",
        summary="Continue a text, with a preference",
        response_model=TextCompletion,
        responses=generation_docs(TextCompletion),
        openapi_extra=request_docs(
            CompletionRequest,
            catalog,
            example_prompt(catalog),
            {"Log probabilities of the prompt": {"echo": True, "logprobs": 1, "max_tokens": 0}},
        ),
    )
    async def create_completion(request: Request) -> Response:
        """OpenAI's text completions: raw prompts, without a chat template. `preference` works as in chat completions.

        With `stream: true` the answer arrives as server-sent events. Each event is a chunk; the last is `data: [DONE]`.
        """
        # No variable holds the parsed body while the request waits.
        job = await prepare(
            request,
            await read_generation_request(
                request, CompletionRequest, limits.max_body_bytes, catalog, engine.info.context_length
            ),
        )
        return await respond(engine, text.tokens, job, ticket_of(request))

    return router
