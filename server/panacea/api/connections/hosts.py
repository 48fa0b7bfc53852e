"""Checks the Host header."""

import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from panacea.api.error_responses import ApiError

_PORT = re.compile(r":\d{1,5}$")


class HostAllowList:
    """Answers 421 to requests whose Host header is not allowed.

    This prevents DNS rebinding. A hostile web page can point its own host name at this server, and then read the
    answers as if they came from its own server. But its requests still carry its own host name.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        """`allowed` contains host names without port. "*" allows all."""
        self.app = app
        self._allowed = frozenset(host.lower() for host in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "*" not in self._allowed and not self._is_allowed(Headers(scope=scope)):
            message = "this host name is not allowed; start the server with --allowed-host to allow it"
            await ApiError(421, message, code="unknown_host").response()(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_allowed(self, headers: Headers) -> bool:
        hosts = headers.getlist("host")
        return bool(hosts) and all(_PORT.sub("", host.lower()) in self._allowed for host in hosts)
