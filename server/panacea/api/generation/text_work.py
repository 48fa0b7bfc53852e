"""Work on a request's text, in the text workers and within the request's limits."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import Request

from panacea.api.access.admission import Ticket, ticket_of
from panacea.engine.outputs import EngineInfo
from panacea.errors import PromptTooLongError
from panacea.text import ModelTokens
from panacea.text.jobs import Result, TextJob
from panacea.text.pool import TextService
from panacea.text.schema_checks import SchemaChecks

Done = TypeVar("Done")


async def perform(text: TextService, http: Request, job: TextJob[Result]) -> Result:
    """The job's result; see `TextService.run`. Raises `ApiError` (503) if a text worker is not free in time."""
    ticket = ticket_of(http)
    return await _in_time(ticket, text.run(job, ticket.tenant))


def most_chars(info: EngineInfo, tokens: ModelTokens) -> int:
    """Most characters of a text whose tokens fit into the context. A longer text need not be tokenized."""
    return info.context_length * tokens.vocabulary.longest_token


def check_length(chars: int, info: EngineInfo, tokens: ModelTokens) -> None:
    """Raises `PromptTooLongError` (param "prompt") if no text of `chars` characters fits into the context."""
    most = most_chars(info, tokens)
    if chars > most:
        raise PromptTooLongError(most, "prompt")


async def check_schema(schemas: SchemaChecks, http: Request, schema: str | None) -> None:
    """Raises `RequestError` if answers cannot follow the schema, and as `perform`."""
    if schema is not None:
        ticket = ticket_of(http)
        await _in_time(ticket, schemas.check(schema, ticket.tenant))


async def _in_time(ticket: Ticket, work: Awaitable[Done]) -> Done:
    try:
        async with asyncio.timeout(ticket.limits.queue_timeout_s):
            return await work
    except TimeoutError:
        raise ticket.too_late("too much text of other requests is waiting; try again later") from None
