"""Reads JSON bodies: with a size limit, strict types, and errors that never repeat a value."""

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from panacea.api.access.admission import ticket_of
from panacea.api.error_responses import ApiError, shown_name

Body = TypeVar("Body", bound=BaseModel)

_MAX_ERRORS = 100
"""Pydantic takes 6 us to describe each error, and a 4 MB body can contain a million of them."""


async def read_json(request: Request, model: type[Body], max_bytes: int) -> Body:
    """The request's body as `model`.

    Raises `ApiError`: 408 if the body does not arrive in time, 413 if it exceeds `max_bytes`, 415 if its content type
    is not JSON, 400 if it is invalid.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise ApiError(415, "the body must be JSON; send Content-Type: application/json", code="unsupported_media_type")
    limit_s = ticket_of(request).limits.body_timeout_s
    try:
        async with asyncio.timeout(limit_s):
            body = await _read(request, max_bytes)
    except TimeoutError:
        ticket_of(request).count("body_timeout")
        message = f"the body did not arrive within {limit_s:g} s"
        raise ApiError(408, message, code="body_timeout", headers={"connection": "close"}) from None
    return parse_json(body, model)


def parse_json(body: bytes, model: type[Body]) -> Body:
    """`body` as `model`. Raises `ApiError` (400) that names the field at fault."""
    try:
        parsed = model.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise _as_api_error(error) from None
    # If a name occurs twice, pydantic uses the last value and ignores the first. The body has been validated, so its
    # nesting and its numbers are safe for the json module.
    path = _duplicate(body)
    if path is not None:
        raise ApiError(400, f"{path} occurs twice", path)
    return parsed


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
        case "json_invalid":
            return ApiError(400, f"the body is not valid JSON ({first['msg'].removeprefix('Invalid JSON: ')})")
        case "missing":
            message = f"{path} is required"
        case "extra_forbidden":
            message = f"{path} is not a field of this request"
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
    """The path of a name that occurs twice in one object, in a form that is safe in an error."""
    repeated: list[_Repeated] = []

    def build(pairs: Sequence[tuple[str, object]]) -> object:
        members: dict[str, object] = {}
        for name, value in pairs:
            if name in members:
                repeated.append(_Repeated(name))
                return repeated[-1]
            members[name] = value
        return members

    content = json.loads(body, object_pairs_hook=build)
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
        path = _find(member, sought)
        if path is not None:
            return (part, *path)
    return None
