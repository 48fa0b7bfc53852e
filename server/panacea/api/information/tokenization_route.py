"""`POST /v1/tokenize` and `POST /v1/detokenize`, in vLLM's shapes."""

from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from panacea.api.access.admission import ticket_of
from panacea.api.catalog import Catalog
from panacea.api.connections.json_body import read_json
from panacea.api.engine_interface import EngineLike
from panacea.api.error_responses import ApiError, error_docs
from panacea.api.fields import Documented
from panacea.api.generation.generation_docs import body_docs, example_prompt
from panacea.api.generation.template_kwargs import check_template_kwargs
from panacea.api.generation.text_work import check_length, most_chars, perform
from panacea.api.information.tokenization_request import DetokenizeRequest, TokenizeRequest
from panacea.config import Limits
from panacea.text.jobs import Detokenize, Tokenize, packed, template_json
from panacea.text.pool import TextService

_PART_BYTES = 1 << 15


class TokenizedPrompt(Documented):
    """The tokens of a text or a conversation."""

    count: int
    """Number of tokens."""
    max_model_len: int
    """Context length in tokens, for prompt and answer together."""
    tokens: list[int]
    """The token ids."""
    token_strs: list[str] | None = None
    """With return_token_strs: each token as the vocabulary spells it, which may differ from its text. Else null."""


class DetokenizedText(Documented):
    """The text of some tokens."""

    prompt: str
    """The text. Incomplete characters are U+FFFD."""


async def _parts(content: bytes) -> AsyncGenerator[bytes]:
    for start in range(0, len(content), _PART_BYTES):
        yield content[start : start + _PART_BYTES]


def tokenization_router(limits: Limits, engine: EngineLike, text: TextService, catalog: Catalog) -> APIRouter:
    """The routes for this engine, tokenizer and catalog."""
    router = APIRouter(tags=["tokens"])

    async def answer(http: Request, job: Tokenize | Detokenize) -> Response:
        content = await perform(text, http, job)
        ticket_of(http).hold_bytes(len(content))
        # In parts: each one waits until its client has read most of those before it. Until then the bytes are held.
        headers = {"content-length": str(len(content))}
        return StreamingResponse(_parts(content), headers=headers, media_type="application/json")

    @router.post(
        "/v1/tokenize",
        summary="Tokenize a text or a conversation",
        response_model=TokenizedPrompt,
        responses=error_docs(400, 401, 403, 404, 408, 413, 415, 421, 429, 431, 500, 503),
        openapi_extra=body_docs(
            TokenizeRequest,
            {
                "A text": {"prompt": example_prompt(catalog), "return_token_strs": True},
                "A conversation": {"messages": [{"role": "user", "content": example_prompt(catalog)}]},
            },
        ),
    )
    async def tokenize(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        """The token ids of `prompt` as in text completions, or of `messages` as in chat completions.

        A text that is longer than any text in the context is an error. A count above `max_model_len` is not.
        """
        wanted = await read_json(request, TokenizeRequest, limits.max_body_bytes)
        ticket_of(request).charge_body()
        wanted.check()
        special = wanted.messages is None if wanted.add_special_tokens is None else wanted.add_special_tokens
        catalog.require(wanted.model)
        check_template_kwargs(wanted.chat_template_kwargs, text.template_variables)
        check_length(len(wanted.prompt or ""), engine.info, text.tokens)
        return await answer(
            request,
            Tokenize(
                prompt=wanted.prompt,
                messages=[message.as_chat_message() for message in wanted.messages or ()],
                variables=template_json(wanted.chat_template_kwargs),
                add_generation_prompt=wanted.add_generation_prompt is not False,
                add_special_tokens=special,
                strings=bool(wanted.return_token_strs),
                max_chars=most_chars(engine.info, text.tokens),
                max_model_len=engine.info.context_length,
            ),
        )

    @router.post(
        "/v1/detokenize",
        summary="Convert token ids to text",
        response_model=DetokenizedText,
        responses=error_docs(400, 401, 403, 404, 408, 413, 415, 421, 429, 431, 500, 503),
        openapi_extra=body_docs(
            DetokenizeRequest, {"The tokens of a text": {"tokens": text.tokens.encode([example_prompt(catalog)])[0]}}
        ),
    )
    async def detokenize(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        """The text of the token ids, at most as many as the context has. Special tokens are included by name."""
        wanted = await read_json(request, DetokenizeRequest, limits.max_body_bytes, engine.info.context_length)
        ticket_of(request).charge_body()
        catalog.require(wanted.model)
        ids = wanted.tokens
        if ids and max(ids) >= engine.info.vocab_size:
            raise ApiError(400, f"tokens: token ids must be below {engine.info.vocab_size}", "tokens")
        if len(ids) > engine.info.context_length:
            message = f"tokens: at most {engine.info.context_length} are converted at once; send them in parts"
            raise ApiError(400, message, "tokens", "context_length_exceeded")
        return await answer(request, Detokenize(packed(ids)))

    return router
