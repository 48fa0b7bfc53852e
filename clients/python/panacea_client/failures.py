"""Converts httpx2's errors and servers' error responses to the client's own errors."""

import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

import httpx2

from panacea_client.errors import (
    BY_STATUS,
    InvalidResponseError,
    NetworkError,
    ProxyError,
    RedirectError,
    RequestError,
    ServerError,
    StatusError,
    TimedOutError,
)
from panacea_client.proxies import ServerProxy

_MAX_SHOWN = 500
_PROXY_REFUSES = 407
_NEEDS_KEY = "; pass the key as api_key=... or set PANACEA_API_KEY"


def status_error(response: httpx2.Response, request_id: str, proxy: ServerProxy | None = None) -> StatusError:
    """The error for an unsuccessful response that has been read."""
    status = response.status_code
    said = _error_object(response)
    message = word(said, "message") or _without_words(response, proxy)
    kind = RedirectError if 300 <= status < 400 else ServerError if status >= 500 else StatusError
    return BY_STATUS.get(status, kind)(
        message + (_NEEDS_KEY if status == 401 else ""),
        status=status,
        retry_after_s=_retry_after_s(response.headers.get("retry-after", "")),
        url=str(response.request.url),
        request_id=response.headers.get("x-request-id", request_id),
        param=word(said, "param"),
        code=word(said, "code"),
    )


def refusal_of_the_proxy(response: httpx2.Response, request_id: str, proxy: ServerProxy | None) -> ProxyError | None:
    """The error for a 407, which is always the proxy's own. None for other responses."""
    if response.status_code != _PROXY_REFUSES or proxy is None:
        return None
    message = f"the proxy {proxy.name} asks for a user name and password; put them into {proxy.source}"
    return ProxyError(message, url=str(response.request.url), request_id=request_id)


def transport_error(
    error: httpx2.RequestError, request: httpx2.Request, request_id: str, proxy: ServerProxy | None = None
) -> RequestError:
    """The error for a request without a complete response."""
    url = str(request.url)
    reason = shown(str(error)) or type(error).__name__
    through = "" if proxy is None else f" through the proxy {proxy.name}"
    match error:
        case httpx2.ConnectError() | httpx2.ProxyError() if proxy is not None:
            return ProxyError(
                f"{url} cannot be reached{through}: {reason}; check {proxy.source}, or name the "
                "server's host in NO_PROXY",
                url=url,
                request_id=request_id,
            )
        case httpx2.ConnectTimeout():
            message = f"no server answers at {url}{through}: timed out while connecting"
            return TimedOutError(message, url=url, request_id=request_id)
        case httpx2.TimeoutException():
            message = f"{url} sent nothing{through} for longer than the timeout"
            return TimedOutError(message, url=url, request_id=request_id)
        case httpx2.ConnectError():
            message = f"no server answers at {url}: {reason}; check base_url or PANACEA_BASE_URL"
            return NetworkError(message, url=url, request_id=request_id)
        case httpx2.DecodingError():
            message = f"the response from {url} cannot be decoded: {reason}"
            return InvalidResponseError(message, url=url, request_id=request_id)
        case _:
            return NetworkError(f"the connection to {url}{through} failed: {reason}", url=url, request_id=request_id)


def invalid_response(response: httpx2.Response, problem: str, request_id: str) -> InvalidResponseError:
    """The error for a successful response with unexpected content."""
    url, kind = str(response.request.url), shown(response.headers.get("content-type", "without content-type"))
    return InvalidResponseError(
        f"the response from {url} is not that of a Panacea server: {shown(problem)} ({kind})",
        url=url,
        request_id=response.headers.get("x-request-id", request_id),
    )


def word(said: dict[str, Any], name: str) -> str | None:
    """A field of an error object, if it is a string."""
    value = said.get(name)
    return shown(value) if isinstance(value, str) else None


def error_object(content: object) -> dict[str, Any]:
    """The object under `error` in a parsed body, or {} if there is none."""
    said = cast("dict[str, Any]", content).get("error") if isinstance(content, dict) else None
    return cast("dict[str, Any]", said) if isinstance(said, dict) else {}


def shown(text: str) -> str:
    """Foreign text in a form that is safe in an error: one line, of limited length, without control characters."""
    line = " ".join(text.split())
    return "".join(character if character.isprintable() else "?" for character in line[:_MAX_SHOWN])


def _error_object(response: httpx2.Response) -> dict[str, Any]:
    try:
        return error_object(json.loads(response.content))
    # RecursionError is raised for a hundred thousand brackets.
    except (ValueError, RecursionError):
        return {}


def _without_words(response: httpx2.Response, proxy: ServerProxy | None) -> str:
    location = response.headers.get("location")
    if location:
        return f"{response.request.url} redirects to {shown(location)}; if that is correct, set it as base_url"
    reason = shown(response.reason_phrase or "an error without a message")
    through = f", or the proxy {proxy.name}," if proxy is not None else ""
    return f"{response.request.url}{through} answered {reason}"


def _retry_after_s(header: str) -> float | None:
    """Seconds from now. The header contains a number of seconds or a date."""
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", header.strip()):
        return float(header)
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max((date - datetime.now(UTC)).total_seconds(), 0.0)
