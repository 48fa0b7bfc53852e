"""Which Host headers are answered."""

import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from panacea.api.error_responses import ApiError

_PORT = re.compile(r":\d{1,5}$")


class HostAllowList:
    """Answers 421 to requests for other hosts.

    A web page that somebody visits can point its own host name at this server (DNS rebinding) and then read answers as
    if they were its own. Its requests still carry its name.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        """`allowed` are host names without port; "*" allows all."""
        self.app = app
        self._allowed = frozenset(host.lower() for host in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "*" not in self._allowed and not self._is_allowed(Headers(scope=scope)):
            error = ApiError(421, "this server does not answer for this host; see --allowed-host", code="unknown_host")
            await error.response()(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_allowed(self, headers: Headers) -> bool:
        hosts = headers.getlist("host")
        return bool(hosts) and all(_PORT.sub("", host.lower()) in self._allowed for host in hosts)
