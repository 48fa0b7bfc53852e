"""How everything that goes wrong is said: OpenAI's error shape, and never a value of the client's."""

import json
import logging
import math
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from panacea.api.fields import Documented
from panacea.errors import EngineError, PanaceaError, PreferenceError, RequestError, RequestFailedError

logger = logging.getLogger(__name__)

_MAX_NAME = 64

_HTTP_MESSAGES = {
    404: "nothing is served at this path",
    405: "this path does not take this method",
}


class ErrorDetail(Documented):
    """What went wrong, in words for a person and for a program."""

    message: str
    """What to do about it, in a sentence."""
    type: str
    """invalid_request_error below status 500, else server_error."""
    param: str | None
    """The request's field at fault."""
    code: str | None
    """A word for programs, where the status does not say all."""


class ErrorResponse(Documented):
    """Body of every answer that is not a success, and of a stream's `error` event."""

    error: ErrorDetail
    """What went wrong."""


class ApiError(Exception):
    """A request that ends with this status."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers

    @property
    def type(self) -> str:
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "server_error"

    def body(self) -> bytes:
        detail = ErrorDetail(message=self.message, type=self.type, param=self.param, code=self.code)
        return ErrorResponse(error=detail).model_dump_json().encode()

    def response(self) -> Response:
        return Response(self.body(), self.status, self.headers, "application/json")


def as_api_error(error: Exception) -> ApiError:
    """The answer to any exception; those that nobody foresaw are logged and told no details of."""
    match error:
        case ApiError():
            return error
        case PreferenceError():
            return ApiError(400, str(error), "preference", "invalid_preference")
        case RequestError():
            return ApiError(400, str(error), error.param)
        case RequestFailedError():
            return ApiError(500, str(error), code="request_failed")
        case EngineError():
            return ApiError(503, f"the engine failed: {error}", code="engine_unavailable", headers=retry_after(error))
        case HTTPException():
            message = _HTTP_MESSAGES.get(error.status_code, "the request was refused")
            return ApiError(error.status_code, message, headers=dict(error.headers or {}))
        case _:
            logger.error("an unforeseen error ended a request", exc_info=error)
            return ApiError(500, "the server failed; its log says why", code="internal_error")


def retry_after(error: EngineError) -> dict[str, str]:
    """The header that says when to try again."""
    return {"retry-after": str(math.ceil(error.retry_after_s))}


def shown_name(name: str) -> str:
    """A client's own word as an error may repeat it: ASCII, and at most 64 characters."""
    return name.encode("ascii", "backslashreplace").decode().translate(_CONTROL_CHARACTERS)[:_MAX_NAME]


_CONTROL_CHARACTERS = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)}


class LastResort:
    """Answers 500 in the error shape where a bug got past everything else, inside the other middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            await as_api_error(error).response()(scope, receive, send)


def handle_errors(app: FastAPI) -> None:
    """Every error on purpose leaves `app` in the error shape."""

    async def respond(_request: Request, error: Exception) -> Response:
        return as_api_error(error).response()

    for kind in (ApiError, PanaceaError, HTTPException):
        app.add_exception_handler(kind, respond)


_MEANINGS: dict[int, tuple[str, tuple[str, str | None, str | None]]] = {
    400: ("The request is at fault; `param` names the field.", ("n must be less than or equal to 16", "n", None)),
    401: ("This server needs a key.", ("this server needs a key: Authorization: Bearer KEY", None, "invalid_api_key")),
    404: (
        "There is no such thing here.",
        ("no such model is served; GET /v1/models lists them", "model", "model_not_found"),
    ),
    408: ("The body did not come in time.", ("the body was not there after 30 s", None, "body_timeout")),
    413: ("The body is too large.", ("the body is larger than 4194304 bytes", None, "body_too_large")),
    415: (
        "The body says that it is something else.",
        ("the body must be JSON: Content-Type: application/json", None, "unsupported_media_type"),
    ),
    421: (
        "This server does not answer for this host name.",
        ("this server does not answer for this host; see --allowed-host", None, "unknown_host"),
    ),
    429: (
        "Too much is waiting; Retry-After says when to come again.",
        ("too many requests are waiting", None, "too_many_requests"),
    ),
    431: (
        "Too many headers, or too long ones.",
        ("the request has more than 100 headers", None, "headers_too_large"),
    ),
    500: ("This one request could not be computed.", ("its logits are not finite numbers", None, "request_failed")),
    503: (
        "The engine is gone or silent and may be back soon, no room came free in time, or the server is about to end.",
        ("the engine failed: its process is gone", None, "engine_unavailable"),
    ),
    504: (
        "The request took longer than this server allows.",
        ("the first token was not there after 300 s", None, "first_token_timeout"),
    ),
}
"""What a status means, and the message, param and code of an example."""


def error_docs(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entry of these statuses."""
    return {status: _documented(status, *_MEANINGS[status]) for status in statuses}


def _documented(status: int, meaning: str, example: tuple[str, str | None, str | None]) -> dict[str, Any]:
    body = json.loads(ApiError(status, *example).body())
    return {"model": ErrorResponse, "description": meaning, "content": {"application/json": {"example": body}}}
