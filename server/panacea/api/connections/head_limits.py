"""Limits on the number and size of a request's headers."""

from starlette.types import ASGIApp, Receive, Scope, Send

from panacea.api.error_responses import ApiError


class HeadLimits:
    """Answers 431 if there are too many headers, or if target and headers together are too large."""

    def __init__(self, app: ASGIApp, max_bytes: int, max_headers: int) -> None:
        self.app = app
        self._max_bytes = max_bytes
        self._max_headers = max_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._error(scope) if scope["type"] == "http" else None
        await (self.app if error is None else error.response())(scope, receive, send)

    def _error(self, scope: Scope) -> ApiError | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if len(headers) > self._max_headers:
            message = f"the request has more than {self._max_headers} headers"
        elif self._size(scope, headers) > self._max_bytes:
            # `Connection` enforces the limit for a head that arrives in several pieces.
            message = f"the headers are larger than {self._max_bytes} bytes"
        else:
            return None
        return ApiError(431, message, code="headers_too_large", headers={"connection": "close"})

    def _size(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> int:
        target = len(scope.get("raw_path", b"")) + len(scope["query_string"])
        return target + sum(len(name) + len(value) + len(": \r\n") for name, value in headers)
