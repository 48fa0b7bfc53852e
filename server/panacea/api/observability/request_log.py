"""Logs one line per request, without any of its content."""

import logging
import time
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from panacea.api.access.bearer_keys import known_account
from panacea.api.error_responses import shown_name
from panacea.api.information.web_page import FOLDER

logger = logging.getLogger(__name__)

QUIET_PATHS = frozenset({"/", "/health", "/ready", "/metrics"})
"""Paths that programs poll. These, and the page's files, are logged at level debug."""

_CLIENT_CLOSED = 499
"""nginx's status for a client that closed the connection before the response."""


@dataclass(slots=True)
class RequestOutcome:
    """The engine's work for one HTTP request so far."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    finished: dict[str, int] = field(default_factory=dict[str, int])
    """Number of answers by finish reason."""

    def count(self, reason: str) -> None:
        """Counts an answer that ended for this reason."""
        self.finished[reason] = self.finished.get(reason, 0) + 1


_outcome: ContextVar[RequestOutcome | None] = ContextVar("outcome", default=None)


def current_outcome() -> RequestOutcome:
    """The outcome of the request that the current task serves."""
    return _outcome.get() or RequestOutcome()


class RequestLog:
    """Logs each request when it has ended: method, route, status, duration, and the engine's work if there was any.

    It logs the route's template, so that lines can be counted by route, and the path only if no route matched. It omits
    the query, because some clients put their key there.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin = time.monotonic()
        outcome = RequestOutcome()
        _outcome.set(outcome)
        path: str = scope["path"]  # before the router changes it
        status = _CLIENT_CLOSED
        is_complete = False

        async def watched_send(message: Message) -> None:
            nonlocal status, is_complete
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                is_complete = not message.get("more_body", False)
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        finally:
            route = getattr(scope.get("route"), "path_format", None)
            fields: dict[str, Any] = {
                "method": shown_name(scope["method"]),
                **({"route": route} if route else {"path": shown_name(path)}),
                "status": status,
                "duration_s": round(time.monotonic() - begin, 4),
            }
            key = account.key if (account := known_account(scope)) else None
            if key is not None:
                fields |= {"key": key.name or key.short_digest, "key_digest": key.short_digest}
            if outcome.prompt_tokens:
                fields |= asdict(outcome)
            if not is_complete:
                fields["complete"] = False
            is_quiet = path in QUIET_PATHS or path.startswith(f"{FOLDER}/")
            logger.log(logging.DEBUG if is_quiet else logging.INFO, "request", extra={"fields": fields})
