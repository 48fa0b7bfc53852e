"""Errors as HTTP responses in OpenAI's shape. They never contain a value that the client sent."""

import json
import logging
import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from panacea.api.fields import Documented
from panacea.errors import (
    EngineError,
    PanaceaError,
    PreferenceError,
    PromptTooLongError,
    RequestError,
    RequestFailedError,
    TextWorkerError,
)

logger = logging.getLogger(__name__)

_MAX_NAME = 64

_HTTP_MESSAGES = {
    404: "nothing is served at this path",
    405: "this path does not support this method",
}


class ErrorDetail(Documented):
    """The cause of an error, for people and for programs."""

    message: str
    """One sentence: what is wrong and what to do."""
    type: str
    """rate_limit_error for status 429, invalid_request_error for other statuses below 500, else server_error."""
    param: str | None
    """Path of the request's field at fault."""
    code: str | None
    """A stable name of the error, for programs. It is null if the status is specific enough."""


class ErrorResponse(Documented):
    """Body of every error response, and data of a stream's `error` event."""

    error: ErrorDetail
    """The error."""


class ApiError(Exception):
    """Ends a request with an HTTP status and a body in the error shape."""

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


class LibraryPanicError(Exception):
    """A library written in Rust panicked: it found that its own state is wrong."""


@contextmanager
def panics_as_errors() -> Generator[None]:
    """Raises a panic of the block as `LibraryPanicError`. The panic itself is no `Exception`; nobody handles it."""
    try:
        yield
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise LibraryPanicError(type(error).__name__) from error


def as_api_error(error: Exception) -> ApiError:
    """The response for any exception. Unexpected exceptions are logged, and their details are not sent."""
    match error:
        case ApiError():
            return error
        case PreferenceError():
            return ApiError(400, str(error), "preference", "invalid_preference")
        case PromptTooLongError():
            return ApiError(400, str(error), error.param, "context_length_exceeded")
        case RequestError():
            return ApiError(400, str(error), error.param)
        case RequestFailedError():
            return ApiError(500, str(error), code="request_failed")
        case EngineError():
            return ApiError(503, f"the engine failed: {error}", code="engine_unavailable", headers=retry_after(error))
        case TextWorkerError():
            return ApiError(503, str(error), code="text_worker_failed", headers=retry_after(error))
        case HTTPException():
            message = _HTTP_MESSAGES.get(error.status_code, "the request was rejected")
            return ApiError(error.status_code, message, headers=dict(error.headers or {}))
        case _:
            logger.error("unexpected exception while serving a request", exc_info=error)
            return ApiError(500, "internal server error; see the server's log", code="internal_error")


def retry_after(error: EngineError | TextWorkerError) -> dict[str, str]:
    """The Retry-After header for this error."""
    return {"retry-after": str(math.ceil(error.retry_after_s))}


def shown_name(name: str) -> str:
    """A client's name in a form that is safe in an error: ASCII, printable, at most 64 characters."""
    return name.encode("ascii", "backslashreplace").decode().translate(_CONTROL_CHARACTERS)[:_MAX_NAME]


_CONTROL_CHARACTERS = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)}


class LastResort:
    """Answers 500 in the error shape if an exception reaches it.

    It runs inside `RequestId`, `RequestLog` and CORS, so these also apply to its answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            with panics_as_errors():
                await self.app(scope, receive, watched_send)
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            await as_api_error(error).response()(scope, receive, send)


def handle_errors(app: FastAPI) -> None:
    """Makes `app` answer every expected error in the error shape."""

    async def respond(_request: Request, error: Exception) -> Response:
        return as_api_error(error).response()

    for kind in (ApiError, PanaceaError, HTTPException):
        app.add_exception_handler(kind, respond)


_MEANINGS: dict[int, tuple[str, tuple[str, str | None, str | None]]] = {
    400: ("The request is invalid. `param` names the field.", ("n must be less than or equal to 16", "n", None)),
    401: (
        "The API key is missing, wrong or expired.",
        ("this server needs an API key; send Authorization: Bearer KEY", None, "invalid_api_key"),
    ),
    403: (
        "The API key is valid, but not for this path.",
        (
            "this API key lacks the scope infer; ask the server's operator for a key that has it",
            None,
            "missing_scope",
        ),
    ),
    404: (
        "The resource does not exist.",
        ("unknown model; GET /v1/models lists the served models", "model", "model_not_found"),
    ),
    408: ("The body did not arrive in time.", ("the body did not arrive within 30 s", None, "body_timeout")),
    413: (
        "The body is too large, holds too many values, or comes in too many chunks.",
        ("the body is larger than 4194304 bytes", None, "body_too_large"),
    ),
    415: (
        "The body's content type is not JSON.",
        ("the body must be JSON; send Content-Type: application/json", None, "unsupported_media_type"),
    ),
    421: (
        "The host name in the request is not allowed.",
        ("this host name is not allowed; start the server with --allowed-host to allow it", None, "unknown_host"),
    ),
    429: (
        "Too many requests are waiting, or the key has used up its requests or tokens per minute. `code` says which "
        "limit it was, and Retry-After when to try again.",
        ("too many requests are waiting; try again later", None, "too_many_requests"),
    ),
    431: (
        "The request has too many headers, or they are too large.",
        ("the request has more than 100 headers", None, "headers_too_large"),
    ),
    500: ("This request could not be computed.", ("its logits are not finite numbers", None, "request_failed")),
    503: (
        "The engine or a text worker failed, the request waited too long, or the server is shutting down.",
        ("the engine failed: its process has ended", None, "engine_unavailable"),
    ),
    504: (
        "The request took longer than this server allows.",
        ("no token was generated within 300 s", None, "first_token_timeout"),
    ),
}
"""The meaning of each status, and the message, param and code of an example."""


def error_docs(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of these statuses."""
    return {status: _documented(status, *_MEANINGS[status]) for status in statuses}


def _documented(status: int, meaning: str, example: tuple[str, str | None, str | None]) -> dict[str, Any]:
    body = json.loads(ApiError(status, *example).body())
    return {"model": ErrorResponse, "description": meaning, "content": {"application/json": {"example": body}}}
