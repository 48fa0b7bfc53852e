"""Every error that the client raises on purpose.

PanaceaError
├── SettingsError               an invalid base URL, key, timeout, ...; it is also a ValueError
└── RequestError                a request without a complete answer; has .url and .request_id
    ├── NetworkError            the server could not be reached, or the connection was lost
    │   ├── ProxyError          the proxy could not be reached, or refused; the message names it
    │   └── TimedOutError       the server sent nothing for longer than the timeout
    ├── InvalidResponseError    the response is not that of a Panacea server
    ├── StreamBrokenError       the stream ended before the answer was complete
    ├── StreamError             the server ended the stream with an error; has .code, .param
    └── StatusError             a status other than success; has .status, .code, .param, .retry_after_s
        ├── RedirectError               3xx; the client never follows redirects
        ├── BadRequestError             400
        ├── UnauthorizedError           401
        ├── ForbiddenError              403
        ├── NotFoundError               404
        ├── MethodNotAllowedError       405
        ├── RequestTimeoutError         408
        ├── ConflictError               409
        ├── BodyTooLargeError           413
        ├── UnsupportedMediaTypeError   415
        ├── MisdirectedError            421
        ├── UnprocessableError          422
        ├── RateLimitError              429
        └── ServerError                 5xx
            ├── InternalServerError     500
            ├── BadGatewayError         502
            ├── UnavailableError        503
            └── GatewayTimeoutError     504

Wrong arguments raise Python's own `TypeError` and `ValueError`. No error contains the API key or a
proxy's password.
"""

from typing import Final


class PanaceaError(Exception):
    """Base of all errors below. `str(error)` is one line that a user can act on."""


class SettingsError(PanaceaError, ValueError):
    """A setting of the client, from an argument or the environment, is invalid."""


class RequestError(PanaceaError):
    """A request did not get a complete answer.

    `message` says why. It is the server's message if there is one. `request_id` identifies the request in the server's
    log. All retries of a request have the same id.
    """

    # All arguments but the message are optional, so that errors can be pickled, as multiprocessing does.
    def __init__(self, message: str, *, url: str = "", request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.url = url
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.message} (request {self.request_id})" if self.request_id else self.message


class NetworkError(RequestError):
    """The server could not be reached, or the connection was lost."""


class ProxyError(NetworkError):
    """The proxy could not be reached, or did not connect to the server. The message names it, without its password."""


class TimedOutError(NetworkError):
    """The server sent nothing for longer than the timeout."""


class InvalidResponseError(RequestError):
    """The response at the URL is not that of a Panacea server."""


class StreamBrokenError(RequestError):
    """The stream ended before the answer was complete. The text so far is the stream's `text`."""


class _ServerSaidError(RequestError):
    def __init__(
        self,
        message: str,
        *,
        url: str = "",
        request_id: str | None = None,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, url=url, request_id=request_id)
        self.param = param
        """The request's field at fault."""
        self.code = code
        """The name of the error, for programs, such as `invalid_preference`."""


class StreamError(_ServerSaidError):
    """The server ended the stream with an error. The text so far is the stream's `text`."""


class StatusError(_ServerSaidError):
    """A response with a status other than success."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        retry_after_s: float | None = None,
        url: str = "",
        request_id: str | None = None,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, url=url, request_id=request_id, param=param, code=code)
        self.status = status
        self.retry_after_s = retry_after_s
        """Seconds that the server asks to wait before the next attempt. None if it does not say."""

    def __str__(self) -> str:
        return f"{self.status}: {super().__str__()}"


class RedirectError(StatusError):
    """3xx. The client never follows redirects, so its API key and its questions are not sent elsewhere."""


class BadRequestError(StatusError):
    """400: a field of the request is invalid. `param` names it."""


class UnauthorizedError(StatusError):
    """401: the API key is missing or wrong."""


class ForbiddenError(StatusError):
    """403: the key does not permit this request."""


class NotFoundError(StatusError):
    """404: the model, the path or the evaluation does not exist."""


class MethodNotAllowedError(StatusError):
    """405: the server at the base URL is not a Panacea server."""


class RequestTimeoutError(StatusError):
    """408: the request did not arrive in time."""


class ConflictError(StatusError):
    """409: the request conflicts with another one."""


class BodyTooLargeError(StatusError):
    """413: the body of the request is too large."""


class UnsupportedMediaTypeError(StatusError):
    """415: the server does not support the content type of the body."""


class MisdirectedError(StatusError):
    """421: the server does not allow this host name."""


class UnprocessableError(StatusError):
    """422: the request is well-formed but cannot be processed."""


class RateLimitError(StatusError):
    """429: too many requests."""


class ServerError(StatusError):
    """5xx: the server failed. The request may be valid."""


class InternalServerError(ServerError):
    """500: the server could not compute the request, or has a bug. See the server's log."""


class BadGatewayError(ServerError):
    """502: a proxy got an invalid response from the server."""


class UnavailableError(ServerError):
    """503: the server cannot answer now."""


class GatewayTimeoutError(ServerError):
    """504: the server, or a proxy in front of it, exceeded its time limit."""


BY_STATUS: Final[dict[int, type[StatusError]]] = {
    400: BadRequestError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    405: MethodNotAllowedError,
    408: RequestTimeoutError,
    409: ConflictError,
    413: BodyTooLargeError,
    415: UnsupportedMediaTypeError,
    421: MisdirectedError,
    422: UnprocessableError,
    429: RateLimitError,
    500: InternalServerError,
    502: BadGatewayError,
    503: UnavailableError,
    504: GatewayTimeoutError,
}
