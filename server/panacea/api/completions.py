"""`POST /v1/completions`."""

from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from panacea.api.cache_salt import cache_salt
from panacea.api.catalog import Catalog
from panacea.api.completion_request import CompletionRequest
from panacea.api.completion_response import TextChoice, TextCompletion, text_logprobs
from panacea.api.engine import EngineLike
from panacea.api.errors import ApiError
from panacea.api.generation import Generation, Prompt
from panacea.api.generation_docs import example_prompt, generation_docs, request_docs
from panacea.api.generation_request import read_generation_request
from panacea.api.job import Job, encoded, new_head, respond
from panacea.api.response import Usage
from panacea.api.sampling import sampling_params
from panacea.text import ModelText, Piece


@dataclass(frozen=True)
class _CompletionJob(Job[CompletionRequest]):
    echoes: list[str]
    """What each choice's text begins with."""

    def whole(self, choices: list[list[Piece]], usage: Usage) -> TextCompletion:
        return self._completion(
            [
                self._choice(index, self.echoes[index] + "".join(piece.text for piece in pieces), pieces)
                for index, pieces in enumerate(choices)
            ],
            usage,
        )

    def opening(self, index: int) -> TextCompletion | None:
        return self._completion([self._choice(index, self.echoes[index], [])]) if self.request.echo else None

    def part(self, index: int, piece: Piece) -> TextCompletion:
        return self._completion([self._choice(index, piece.text, [piece])])

    def closing(self, usage: Usage) -> TextCompletion:
        return self._completion([], usage)

    def _choice(self, index: int, text: str, pieces: list[Piece]) -> TextChoice:
        return TextChoice(
            index=index,
            text=text,
            logprobs=text_logprobs(pieces) if self.request.logprobs is not None else None,
            finish_reason=pieces[-1].finish_reason if pieces else None,
        )

    def _completion(self, choices: list[TextChoice], usage: Usage | None = None) -> TextCompletion:
        return TextCompletion(**self.head, object="text_completion", choices=choices, usage=usage)


def completions_router(max_body_bytes: int, engine: EngineLike, text: ModelText, catalog: Catalog) -> APIRouter:
    """The route, over these parts."""
    router = APIRouter(tags=["completions"])

    async def prepare(wanted: CompletionRequest, salt: str) -> _CompletionJob:
        choice = catalog.choose(wanted.model, wanted.preference)
        prompts: list[Prompt] = []
        for ids in await prompt_ids(wanted.prompt):
            check(ids)
            prompts.append(Prompt(ids, sampling_params(wanted, text.defaults, engine.info, len(ids))))
        generation = Generation(
            tuple(prompts), choice.preference, tuple(wanted.stop or ()), continues=True, cache_salt=salt
        )
        return _CompletionJob(wanted, generation, new_head("cmpl", choice, catalog), echoes(wanted))

    async def prompt_ids(prompts: list[str] | list[list[int]]) -> list[list[int]]:
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]
        if texts:
            return await encoded(lambda: text.encode(texts), sum(map(len, texts)))
        return [prompt for prompt in prompts if not isinstance(prompt, str)]

    def check(ids: list[int]) -> None:
        if not ids:
            raise ApiError(400, "prompt must not be empty: this model has no token that begins a text", "prompt")
        if max(ids) >= engine.info.vocab_size:
            raise ApiError(400, f"prompt: token ids must be below {engine.info.vocab_size}", "prompt")

    def echoes(wanted: CompletionRequest) -> list[str]:
        prompts = wanted.prompt if wanted.echo else [""] * len(wanted.prompt)
        texts = [prompt if isinstance(prompt, str) else text.decode(prompt) for prompt in prompts]
        return [echo for echo in texts for _ in range(wanted.n or 1)]

    @router.post(
        "/v1/completions",
        summary="Continue a text, with a preference",
        response_model=TextCompletion,
        responses=generation_docs(TextCompletion),
        openapi_extra=request_docs(CompletionRequest, catalog, example_prompt(catalog)),
    )
    async def create_completion(request: Request) -> Response:
        """OpenAI's text completions: raw prompts, without a chat template. `preference` as in chat completions.

        With `stream: true` the answer arrives as server-sent events, each a chunk, and ends with `data: [DONE]`.
        """
        wanted = await read_generation_request(request, CompletionRequest, max_body_bytes, catalog)
        return await respond(engine, text, await prepare(wanted, cache_salt(request, wanted.cache_salt)))

    return router
