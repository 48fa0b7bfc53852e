"""Checks how a request is framed, and turns the absolute form of a target into the usual one."""

from urllib.parse import unquote, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from panacea.api.connections.connection import has_body
from panacea.api.error_responses import ApiError

_VERSIONS = ("1.0", "1.1")
_CLOSE = (b"connection", b"close")
_CLOSES = {"connection": "close"}
_NO_TARGET = "the target must be a path or an http URL"


class RequestLine:
    """Refuses requests that two programs could read differently, and closes connections of answers that come early.

    - `Content-Length` beside `Transfer-Encoding` is refused, and so is `Transfer-Encoding` in HTTP/1.0 (RFC 9112, 6.1).
      A proxy may take the other one of the two, and would then see another request in the body.
    - A target in absolute form (`GET http://host/path`) is served, and its host replaces the Host header (3.2.2).
    - An answer that is sent before all of the body has arrived says that it closes the connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_early(message: Message) -> None:
            if message["type"] == "http.response.start" and not has_body(scope):
                headers = [*message.get("headers", ())]
                if _CLOSE not in headers:
                    message["headers"] = [*headers, _CLOSE]
            await send(message)

        error = _refusal(scope) or _made_relative(scope)
        await (self.app if error is None else error.response())(scope, receive, send_early)


def _refusal(scope: Scope) -> ApiError | None:
    if scope["http_version"] not in _VERSIONS:
        message = "this version of HTTP is not supported; use HTTP/1.1"
        return ApiError(505, message, code="http_version_not_supported", headers=_CLOSES)
    names = {name for name, _ in scope["headers"]}
    if {b"content-length", b"transfer-encoding"} <= names:
        return _invalid("the request has both Content-Length and Transfer-Encoding; send one of them")
    if b"transfer-encoding" in names and scope["http_version"] == "1.0":
        return _invalid("HTTP/1.0 has no Transfer-Encoding; use HTTP/1.1")
    return None


def _made_relative(scope: Scope) -> ApiError | None:
    """Replaces a target in absolute form by its path. Returns the error of a target that has no usual form."""
    target: bytes = scope["raw_path"]
    if target.startswith(b"/") or target == b"*":
        return None
    try:
        parts = urlsplit(target.decode("ascii"))
    except ValueError:
        return _invalid(_NO_TARGET)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return _invalid(_NO_TARGET)
    raw_path = parts.path or "/"
    scope["raw_path"] = raw_path.encode("ascii")
    scope["path"] = unquote(raw_path)
    host = parts.netloc.rpartition("@")[2].encode("ascii")
    scope["headers"] = [(b"host", host), *(header for header in scope["headers"] if header[0] != b"host")]
    return None


def _invalid(message: str) -> ApiError:
    return ApiError(400, message, code="invalid_http", headers=_CLOSES)
