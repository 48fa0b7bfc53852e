"""Every error that the client raises on purpose.

PanaceaError
├── SettingsError               a base URL, key, timeout, ... that cannot be used; a ValueError too
└── RequestError                a request that did not get its answer; has .url and .request_id
    ├── NetworkError            nobody could be reached there, or the connection was lost
    │   └── TimedOutError       ... or nothing was heard of for too long
    ├── InvalidResponseError    what came back is not what a Panacea server says
    ├── StreamBrokenError       a stream stopped before its end
    ├── StreamError             the server ended a stream with an error; has .code, .param
    └── StatusError             any answer but a success; has .status, .code, .param, .retry_after_s
        ├── RedirectError               3xx, which the client never follows
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

Wrong arguments are Python's own `TypeError` and `ValueError`. No error ever holds the key.
"""

from typing import Final


class PanaceaError(Exception):
    """Base of all errors below; `str(error)` is one line that a user can act on."""


class SettingsError(PanaceaError, ValueError):
    """A setting of the client, given or from the environment, that cannot be used."""


class RequestError(PanaceaError):
    """A request that did not get its answer.

    `message` says why, in the server's words where it gave any. `request_id` is the name under which the server's log
    knows the request; its retries share it.
    """

    # Everything but the message may be left out, so that errors can be pickled: multiprocessing sends them so.
    def __init__(self, message: str, *, url: str = "", request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.url = url
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.message} (request {self.request_id})" if self.request_id else self.message


class NetworkError(RequestError):
    """Nobody could be reached at the URL, or the connection was lost."""


class TimedOutError(NetworkError):
    """The server was not heard of for as long as the timeout allows."""


class InvalidResponseError(RequestError):
    """Something answers at the URL that is no Panacea server, or a broken one."""


class StreamBrokenError(RequestError):
    """A stream stopped before its end. What had come is in the stream's `text`."""


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
        """The cause in one word for programs, such as `invalid_preference`."""


class StreamError(_ServerSaidError):
    """The server ended a stream with an error. What had come is in the stream's `text`."""


class StatusError(_ServerSaidError):
    """An answer with any status but a success."""

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
        """How long the server asks to wait before the next attempt, if it says so."""

    def __str__(self) -> str:
        return f"{self.status}: {super().__str__()}"


class RedirectError(StatusError):
    """3xx. The client follows no redirect, so that its key and its questions go nowhere else."""


class BadRequestError(StatusError):
    """400: a field of the request cannot be used; `param` names it."""


class UnauthorizedError(StatusError):
    """401: the server needs a key, or another one."""


class ForbiddenError(StatusError):
    """403: the key does not allow this."""


class NotFoundError(StatusError):
    """404: no such model, no such path, or nothing to show there."""


class MethodNotAllowedError(StatusError):
    """405: something else than a Panacea server is at the base URL."""


class RequestTimeoutError(StatusError):
    """408: the server waited too long for the request."""


class ConflictError(StatusError):
    """409: the request collides with another one."""


class BodyTooLargeError(StatusError):
    """413: the request has more bytes than the server takes."""


class UnsupportedMediaTypeError(StatusError):
    """415: the body is of a kind that the server does not read."""


class MisdirectedError(StatusError):
    """421: the server does not answer to this host name."""


class UnprocessableError(StatusError):
    """422: the request is understood and cannot be followed."""


class RateLimitError(StatusError):
    """429: too many requests."""


class ServerError(StatusError):
    """5xx: the server failed under a request that may be good."""


class InternalServerError(ServerError):
    """500: a bug; the server's log says which."""


class BadGatewayError(ServerError):
    """502: a proxy got no sensible answer from the server."""


class UnavailableError(ServerError):
    """503: the server cannot answer now."""


class GatewayTimeoutError(ServerError):
    """504: a proxy lost patience with the server."""


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
