"""The time limits of a request that waits for its tokens."""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

from panacea.api.access.admission import Rejection, Ticket
from panacea.api.error_responses import ApiError


class Deadlines:
    """Within its block, calls `tell` with the error that ends a request: a time limit, or the server's shutdown."""

    def __init__(self, ticket: Ticket, tell: Callable[[ApiError], None]) -> None:
        self._ticket = ticket
        self._tell = tell
        self._timers = ExitStack()
        self._first_token: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        limits = self._ticket.limits
        self._first_token = self._at(limits.first_token_timeout_s, "first_token_timeout", "no token was generated")
        self._at(limits.request_timeout_s, "request_timeout", "the answer was not complete")
        self._timers.enter_context(self._ticket.failures(self._tell))
        return self

    def __exit__(self, *_: object) -> None:
        self._timers.close()

    def first_token(self) -> None:
        """Cancels the limit on the first token, and releases the prompt tokens. May be called for every token."""
        if self._first_token is not None:
            self._first_token.cancel()
            self._first_token = None
            self._ticket.release_tokens()

    def _at(self, limit_s: float, reason: Rejection, what: str) -> asyncio.TimerHandle:
        def end() -> None:
            self._ticket.count(reason)
            self._tell(ApiError(504, f"{what} within {limit_s:g} s", code=reason, headers=_NO_RETRY))

        left_s = self._ticket.arrived_at + limit_s - time.monotonic()
        timer = asyncio.get_running_loop().call_later(left_s, end)
        self._timers.callback(timer.cancel)
        return timer


_NO_RETRY = {"x-should-retry": "false"}
"""Without this header the official client would repeat the request twice."""
