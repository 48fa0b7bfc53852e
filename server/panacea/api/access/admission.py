"""Who is let in: bounds on what waits, in all and for each tenant, and the end of service."""

import math
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Literal, get_args

from starlette.requests import Request

from panacea.api.access.quota import Quota
from panacea.api.error_responses import ApiError
from panacea.config import Limits

Rejection = Literal[
    "too_many_requests",
    "too_many_tokens",
    "too_many_bytes",
    "too_many_connections",
    "shutting_down",
    "head_timeout",
    "body_timeout",
    "queue_timeout",
    "first_token_timeout",
    "request_timeout",
    "slow_reader",
]
"""Why a request was refused or ended for the sake of a limit: its error's `code`, and a label in metrics."""

_TICKET = "ticket"
_LONGEST_RETRY_S = 60
_FINISHES = 64
"""So many last ends of requests tell how fast they end."""


class Admission:
    """The state of the door: what all requests hold that were let in, and whether more are.

    Called from the event loop alone.
    """

    def __init__(self, limits: Limits, max_batch: int, *, several_tenants: bool) -> None:
        self.limits = limits
        self.requests = Quota(max_batch + limits.max_queued_requests, shared=several_tenants)
        self.tokens = Quota(limits.max_queued_tokens, shared=several_tenants)
        self.body_bytes = Quota(limits.max_queued_body_bytes, shared=several_tenants)
        self.rejections: dict[Rejection, int] = dict.fromkeys(get_args(Rejection), 0)
        self.draining = False
        self._max_batch = max_batch
        self._tickets: set[Ticket] = set()
        self._finishes: deque[float] = deque(maxlen=_FINISHES)

    @property
    def is_idle(self) -> bool:
        """Whether every request that was let in is answered."""
        return not self._tickets

    def enter(self, tenant: str) -> "Ticket":
        """Lets a request in. Raises `ApiError`: 429 if there is no room for it."""
        ticket = Ticket(self, tenant)
        ticket.hold_answers(1)
        self._tickets.add(ticket)
        return ticket

    def leave(self, ticket: "Ticket") -> None:
        """A request is answered, or gone."""
        self._tickets.discard(ticket)
        self._finishes.append(time.monotonic())

    def drain(self) -> None:
        """From now on nobody is let in."""
        self.draining = True

    def cut_off(self) -> None:
        """Ends every request that is left."""
        for ticket in self._tickets:
            ticket.fail(self.shutting_down())

    def count(self, reason: Rejection) -> None:
        """A request was refused, or ended early, for this reason."""
        self.rejections[reason] += 1

    def refuse(self, reason: Rejection, message: str, status: int = 429) -> ApiError:
        """An error that says when to come again."""
        self.count(reason)
        return ApiError(status, message, code=reason, headers={"retry-after": str(self.retry_after_s())})

    def shutting_down(self) -> ApiError:
        self.count("shutting_down")
        headers = {"retry-after": "1", "connection": "close"}
        return ApiError(503, "this server is shutting down", code="shutting_down", headers=headers)

    def too_many_connections(self) -> ApiError:
        self.count("too_many_connections")
        headers = {"retry-after": "1", "connection": "close"}
        return ApiError(503, "this server has too many connections", code="too_many_connections", headers=headers)

    def retry_after_s(self) -> int:
        """How long what waits now would take, at the pace of the last requests; 1 to 60 seconds."""
        waiting = max(1, self.requests.held - self._max_batch)
        if len(self._finishes) < 2:
            return 1
        seconds_each = (time.monotonic() - self._finishes[0]) / len(self._finishes)
        return min(max(1, math.ceil(waiting * seconds_each)), _LONGEST_RETRY_S)


class Ticket:
    """What one HTTP request holds until it is answered."""

    def __init__(self, admission: Admission, tenant: str) -> None:
        self.tenant = tenant
        self.arrived_at = time.monotonic()
        self.limits = admission.limits
        self._admission = admission
        self._error: ApiError | None = None
        self._on_failure: Callable[[ApiError], None] | None = None
        self._answers = 0
        self._tokens = 0
        self._bytes = 0

    def hold_answers(self, count: int) -> None:
        """So many answers are wanted. Raises `ApiError` (429) if they are too many beside all others."""
        self._answers = self._resized(self._admission.requests, self._answers, count)
        if self._answers < count:
            raise self._admission.refuse("too_many_requests", "too many requests are waiting")

    def hold_tokens(self, count: int) -> None:
        """So many prompt tokens wait. Raises `ApiError` (429) if they are too many beside all others."""
        self._tokens = self._resized(self._admission.tokens, self._tokens, count)
        if self._tokens < count:
            raise self._admission.refuse("too_many_tokens", "too many prompt tokens are waiting")

    def hold_bytes(self, count: int) -> None:
        """So much more of the body is here. Raises `ApiError` (429) if it is too much beside all others."""
        wanted = self._bytes + count
        self._bytes = self._resized(self._admission.body_bytes, self._bytes, wanted)
        if self._bytes < wanted:
            raise self._admission.refuse("too_many_bytes", "too many bytes of requests are waiting")

    def release_tokens(self) -> None:
        """The prompts wait no more: an answer has begun."""
        self._tokens = self._resized(self._admission.tokens, self._tokens, 0)

    def _resized(self, quota: Quota, held: int, wanted: int) -> int:
        """Holds `wanted` of the quota, or nothing. Given back first, so that what is there alone always finds room."""
        quota.give_back(self.tenant, held)
        return wanted if quota.take(self.tenant, wanted) else 0

    def count(self, reason: Rejection) -> None:
        """The request ends early, for this reason."""
        self._admission.count(reason)

    def too_late(self, message: str) -> ApiError:
        """The error of a request whose turn did not come in time."""
        return self._admission.refuse("queue_timeout", message, 503)

    def fail(self, error: ApiError) -> None:
        """The request is to end with this error."""
        self._error = error
        if self._on_failure is not None:
            self._on_failure(error)

    @contextmanager
    def failures(self, tell: Callable[[ApiError], None]) -> Generator[None]:
        """Within the block `tell` learns of an error that the request is to end with, once."""
        self._on_failure = tell
        try:
            if self._error is not None:
                tell(self._error)
            yield
        finally:
            self._on_failure = None

    def close(self) -> None:
        """The request is answered, or gone."""
        self._answers = self._resized(self._admission.requests, self._answers, 0)
        self._bytes = self._resized(self._admission.body_bytes, self._bytes, 0)
        self.release_tokens()
        self._admission.leave(self)


def keep_ticket(request: Request, ticket: Ticket) -> None:
    """From now on `ticket_of` finds it."""
    request.scope.setdefault("state", {})[_TICKET] = ticket


def ticket_of(request: Request) -> Ticket:
    """What the request was let in with."""
    ticket: Ticket = getattr(request.state, _TICKET)
    return ticket
