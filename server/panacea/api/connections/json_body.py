"""Reads JSON bodies: with limits on bytes and values, strict types, and errors that never repeat a value.

Time follows the number of values in a body and not its bytes: 4 MB of `[]` hold a million lists. So the values are
counted before anything is parsed. Then the body is parsed once, by the parser that finds repeated names too.
"""

import asyncio
import gc
import json
import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import jiter
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from panacea.api.access.admission import ticket_of
from panacea.api.connections.loop_clock import running_time_limit
from panacea.api.connections.parsing_turns import parsing_turns
from panacea.api.error_responses import ApiError, shown_name

Body = TypeVar("Body", bound=BaseModel)

MAX_STRUCTURE = 1 << 16
"""Most arrays, objects and strings in a body; each name in an object is a string. The worst of so many that we know are
different names: parsing them takes 31 ms of the event loop, and checking them 12 ms, on one core of an AMD EPYC."""

MAX_VALUES = 1 << 18
"""Most values and names in a body, besides the token ids that fill a context. So many token ids take 25 ms."""

_AT_ONCE_BYTES = 1 << 15
"""Larger bodies are parsed one at a time, and other work of the event loop gets a turn between the steps."""

_MAX_ERRORS = 100
"""Pydantic takes 6 us to describe each error, and a body can contain a hundred thousand of them."""


async def read_json(request: Request, model: type[Body], max_bytes: int, token_ids: int = 0) -> Body:
    """The request's body as `model`. `token_ids` are those of a full context, where the body may hold some.

    Raises `ApiError`: 408 if the body does not arrive in time, 413 if it exceeds `max_bytes`, `MAX_STRUCTURE` or
    `MAX_VALUES`, 415 if its content type is not JSON, 400 if it is invalid.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise ApiError(415, "the body must be JSON; send Content-Type: application/json", code="unsupported_media_type")
    limit_s = ticket_of(request).limits.body_timeout_s
    try:
        async with running_time_limit(limit_s):
            body = await _read(request, max_bytes)
    except TimeoutError:
        ticket_of(request).count("body_timeout")
        message = f"the body did not arrive within {limit_s:g} s"
        raise ApiError(408, message, code="body_timeout", headers={"connection": "close"}) from None
    if len(body) <= _AT_ONCE_BYTES:
        return parse_json(body, model, token_ids)
    async with parsing_turns().turn(ticket_of(request).tenant):
        count_values(body, token_ids)
        await asyncio.sleep(0)
        content = _parsed(body)
        del body
        await asyncio.sleep(0)
        return _validated(content, model)


def parse_json(body: bytes, model: type[Body], token_ids: int = 0) -> Body:
    """`body` as `model`. Raises `ApiError` (400 or 413) that names the field at fault."""
    count_values(body, token_ids)
    return _validated(_parsed(body), model)


def count_values(body: bytes, token_ids: int = 0) -> int:
    """The number of values, containers and names in a JSON text, or a little more. In any other text at least as many
    as precede its first error.

    Copies and counts at the speed of memory, whatever the text holds. Raises `ApiError` (413) above `MAX_STRUCTURE`,
    and above `MAX_VALUES` and `token_ids` together.
    """
    if len(body) <= MAX_STRUCTURE:  # each takes a byte
        return len(body)
    if b"\\" in body:  # without escapes, each quote begins or ends a string
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    strings = body.count(b'"') // 2
    if strings > MAX_STRUCTURE:
        raise _too_many(MAX_STRUCTURE, "arrays, objects and strings")
    outside = b"".join(body.split(b'"')[::2])
    containers = outside.count(b"[") + outside.count(b"{")
    if strings + containers > MAX_STRUCTURE:
        raise _too_many(MAX_STRUCTURE, "arrays, objects and strings")
    values = containers + outside.count(b",") + outside.count(b":") + 1
    if values > MAX_VALUES + token_ids:
        raise _too_many(MAX_VALUES + token_ids, "values")
    return values


def _too_many(limit: int, what: str) -> ApiError:
    return ApiError(413, f"the body holds more than {limit} {what}", code="too_many_values")


@contextmanager
def _without_collections() -> Generator[None]:
    """Keeps the garbage collector out of the block. It would look at all new containers again and again: with it,
    65,536 empty lists take 58 ms, and without it 4."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_without_collections()
def _parsed(body: bytes) -> object:
    try:
        # NaN and infinite numbers pass here. The models refuse them and name the field.
        content: object = jiter.from_json(body, catch_duplicate_keys=True, cache_mode="none")
    except ValueError as error:
        repeated = re.match(r'Detected duplicate key "(.*)" at line \d+ column \d+$', str(error), re.DOTALL)
        if repeated is None:
            raise ApiError(400, f"the body is not valid JSON ({error})") from None
        path = _duplicate(body) or shown_name(repeated[1])
        raise ApiError(400, f"{path} occurs twice", path) from None
    return content


@_without_collections()
def _validated(content: object, model: type[Body]) -> Body:
    try:
        return model.model_validate(content, strict=True)
    except ValidationError as error:
        raise _as_api_error(error) from None


async def _read(request: Request, max_bytes: int) -> bytes:
    too_large = ApiError(413, f"the body is larger than {max_bytes} bytes", code="body_too_large")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def _as_api_error(error: ValidationError) -> ApiError:
    if error.error_count() > _MAX_ERRORS:
        return ApiError(400, f"the body has more than {_MAX_ERRORS} errors")
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    path = _path(first["loc"])
    match first["type"]:
        case "missing":
            message = f"{path} is required"
        case "extra_forbidden":
            message = f"{path} is not a field of this request"
        case "model_type" | "model_attributes_type" | "dict_type":
            message = f"{path or 'the body'} must be an object"
        case "list_type":
            message = f"{path or 'the body'} must be a valid array"
        case _:
            message = f"{path or 'the body'} {_as_rule(first['msg'])}"
    return ApiError(400, message, path or None)


def _as_rule(message: str) -> str:
    """Turns pydantic's "List should have at most 4 items after validation, not 5" into "must have at most 4 items"."""
    subject, should, rule = message.partition(" should ")
    return f"must {rule.partition(' after validation')[0]}" if should else subject


def _path(location: Sequence[str | int]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return shown_name(path)


@dataclass(frozen=True)
class _Repeated:
    """A placeholder for an object that has this name twice."""

    name: str


def _duplicate(body: bytes) -> str | None:
    """The path of a name that occurs twice in one object, in a form that is safe in an error.

    None if the json module cannot read the rest of the body.
    """
    repeated: list[_Repeated] = []

    def build(pairs: Sequence[tuple[str, object]]) -> object:
        members: dict[str, object] = {}
        for name, value in pairs:
            if name in members:
                repeated.append(_Repeated(name))
                return repeated[-1]
            members[name] = value
        return members

    try:
        content = json.loads(body.decode(), object_pairs_hook=build)
    except (ValueError, RecursionError):
        return None
    # The last one is always in the content. An enclosing object with a repeated name would have been found later.
    return _path(_find(content, repeated[-1]) or ()) if repeated else None


def _find(value: object, sought: _Repeated) -> tuple[str | int, ...] | None:
    if value is sought:
        return (sought.name,)
    members: Iterable[tuple[str | int, object]] = ()
    if isinstance(value, dict):
        members = value.items()  # pyright: ignore[reportUnknownVariableType]
    elif isinstance(value, list):
        members = enumerate(value)  # pyright: ignore[reportUnknownArgumentType]
    for part, member in members:
        path = _find(member, sought) if isinstance(member, dict | list | _Repeated) else None
        if path is not None:
            return (part, *path)
    return None
