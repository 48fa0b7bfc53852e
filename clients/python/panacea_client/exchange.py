"""The steps from a request to its answer, with retries, but without I/O.

`exchange` is a generator that yields steps. A transport, blocking or asynchronous, performs each step and sends back
its result.
"""

from collections.abc import Generator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TypeVar
from uuid import uuid4

import httpx2
from pydantic import ValidationError

from panacea_client.calls import Call
from panacea_client.errors import RequestError
from panacea_client.failures import invalid_response, refusal_of_the_proxy, status_error, transport_error
from panacea_client.proxies import ServerProxy
from panacea_client.retries import delay_before_retry_s
from panacea_client.settings import ClientSettings, timeouts

T = TypeVar("T")


@dataclass(frozen=True)
class Send:
    """Send this request. With `stream`, a successful response is returned unread. Any other is read and closed."""

    request: httpx2.Request
    stream: bool


@dataclass(frozen=True)
class Wait:
    """Wait for a number of seconds."""

    seconds: float


StepResult = httpx2.Response | httpx2.RequestError | None
"""The result of `Send`. The result of `Wait` is None."""

ExchangeSteps = Generator[Send | Wait, StepResult, T]


@dataclass(frozen=True)
class Opened:
    """A successful response, and the id of its request in the server's log."""

    response: httpx2.Response
    request_id: str


def exchange(settings: ClientSettings, call: Call[T]) -> ExchangeSteps[T]:
    """Returns the parsed answer. Raises `RequestError`."""
    opened = yield from opening(settings, call, stream=False)
    try:
        return call.read(opened.response.content, opened.request_id)
    except ValidationError as error:
        raise invalid_response(opened.response, _first_problem(error), opened.request_id) from error


def opening(settings: ClientSettings, call: Call[object], *, stream: bool) -> ExchangeSteps[Opened]:
    """Returns a successful response, which has been read unless `stream`. Raises `RequestError`."""
    request_id = uuid4().hex
    request = _request(settings, call, request_id)
    attempt = 0
    while True:
        outcome = yield Send(request, stream)
        if isinstance(outcome, httpx2.Response) and outcome.is_success:
            return Opened(outcome, outcome.headers.get("x-request-id", request_id))
        assert outcome is not None
        error, delay_s = _judged(outcome, request, request_id, attempt, settings.proxy)
        if delay_s is None or call.once or attempt == settings.max_retries:
            raise error from (outcome if isinstance(outcome, httpx2.RequestError) else None)
        yield Wait(delay_s)
        attempt += 1


def _judged(
    outcome: httpx2.Response | httpx2.RequestError,
    request: httpx2.Request,
    request_id: str,
    attempt: int,
    proxy: ServerProxy | None,
) -> tuple[RequestError, float | None]:
    """The error for a failure, and the seconds to wait before the next attempt. None means no further attempt."""
    if isinstance(outcome, httpx2.RequestError):
        return transport_error(outcome, request, request_id, proxy), delay_before_retry_s(outcome, attempt)
    refusal = refusal_of_the_proxy(outcome, request_id, proxy)
    if refusal is not None:
        return refusal, None
    error = status_error(outcome, request_id, proxy)
    if outcome.headers.get("x-should-retry") == "false":
        return error, None
    return error, delay_before_retry_s(error, attempt)


def _request(settings: ClientSettings, call: Call[object], request_id: str) -> httpx2.Request:
    headers = dict(settings.headers) | {
        "accept": "application/json, text/event-stream",
        "user-agent": _user_agent(),
        "x-request-id": request_id,
    }
    if settings.api_key is not None:
        headers["authorization"] = f"Bearer {settings.api_key}"
    if call.body is not None:
        headers["content-type"] = "application/json"
    return httpx2.Request(
        call.method,
        settings.base_url + call.path,
        # In UTF-8, because a key may not be ASCII, which httpx2 would use.
        headers=[(name.encode(), value.encode()) for name, value in headers.items()],
        content=call.body,
        extensions={"timeout": timeouts(call.timeout_s or settings.timeout_s)},
    )


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
    path = ".".join(map(str, problem["loc"]))
    return f"{path}: {problem['msg']}" if path else problem["msg"]


@cache
def _user_agent() -> str:
    return f"panacea-client/{version('panacea-client')}"
