"""`POST /v1/tokenize` and `POST /v1/detokenize`, in vLLM's shapes."""

from fastapi import APIRouter, Request

from panacea.api.access.admission import ticket_of
from panacea.api.catalog import Catalog
from panacea.api.connections.json_body import read_json
from panacea.api.engine_interface import EngineLike
from panacea.api.error_responses import ApiError, error_docs
from panacea.api.fields import Documented
from panacea.api.generation.generation_docs import body_docs, example_prompt
from panacea.api.generation.job import encoded
from panacea.api.generation.template_kwargs import check_template_kwargs
from panacea.api.information.tokenization_request import DetokenizeRequest, TokenizeRequest
from panacea.config import Limits
from panacea.text import ModelText

_CHARS_PER_TOKEN = 1
"""Decoding one token takes at most as long as encoding this many characters."""


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


def tokenization_router(limits: Limits, engine: EngineLike, text: ModelText, catalog: Catalog) -> APIRouter:
    """The routes for this engine, tokenizer and catalog."""
    router = APIRouter(tags=["tokens"])

    def tokens(wanted: TokenizeRequest) -> TokenizedPrompt:
        if wanted.messages is None:
            assert wanted.prompt is not None, "the body was checked"
            (ids,) = text.encode([wanted.prompt], add_special_tokens=wanted.add_special_tokens is not False)
        else:
            ids = text.prompt_ids(
                [message.as_chat_message() for message in wanted.messages],
                wanted.chat_template_kwargs,
                add_generation_prompt=wanted.add_generation_prompt is not False,
                add_special_tokens=bool(wanted.add_special_tokens),
            )
        return TokenizedPrompt(
            count=len(ids),
            max_model_len=engine.info.context_length,
            tokens=ids,
            token_strs=text.token_strings(ids) if wanted.return_token_strs else None,
        )

    @router.post(
        "/v1/tokenize",
        summary="Tokenize a text or a conversation",
        responses=error_docs(400, 401, 403, 404, 408, 413, 415, 421, 429, 431, 503),
        openapi_extra=body_docs(
            TokenizeRequest,
            {
                "A text": {"prompt": example_prompt(catalog), "return_token_strs": True},
                "A conversation": {"messages": [{"role": "user", "content": example_prompt(catalog)}]},
            },
        ),
    )
    async def tokenize(request: Request) -> TokenizedPrompt:  # pyright: ignore[reportUnusedFunction]
        """The token ids of `prompt` as in text completions, or of `messages` as in chat completions."""
        wanted = await read_json(request, TokenizeRequest, limits.max_body_bytes)
        ticket_of(request).charge_body()
        wanted.check()
        catalog.require(wanted.model)
        check_template_kwargs(wanted.chat_template_kwargs, text)
        contents = [wanted.prompt or "", *(part.text for each in wanted.messages or () for part in each.content)]
        return await encoded(lambda: tokens(wanted), sum(map(len, contents)))

    @router.post(
        "/v1/detokenize",
        summary="Convert token ids to text",
        responses=error_docs(400, 401, 403, 404, 408, 413, 415, 421, 429, 431, 503),
        openapi_extra=body_docs(
            DetokenizeRequest, {"The tokens of a text": {"tokens": text.encode([example_prompt(catalog)])[0]}}
        ),
    )
    async def detokenize(request: Request) -> DetokenizedText:  # pyright: ignore[reportUnusedFunction]
        """The text of the token ids. Special tokens are included by name."""
        wanted = await read_json(request, DetokenizeRequest, limits.max_body_bytes)
        ticket_of(request).charge_body()
        catalog.require(wanted.model)
        ids = wanted.tokens
        if ids and max(ids) >= engine.info.vocab_size:
            raise ApiError(400, f"tokens: token ids must be below {engine.info.vocab_size}", "tokens")
        return DetokenizedText(prompt=await encoded(lambda: text.decode(ids), _CHARS_PER_TOKEN * len(ids)))

    return router
