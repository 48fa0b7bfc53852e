"""Admission control: limits on waiting requests, in total and per tenant, and draining at shutdown."""

import math
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Literal, get_args

from starlette.requests import Request

from panacea.api.access.key_ring import Account, KeyRing
from panacea.api.access.quota import Quota
from panacea.api.error_responses import ApiError
from panacea.config import Limits

Rejection = Literal[
    "too_many_requests",
    "too_many_tokens",
    "too_many_bytes",
    "too_many_connections",
    "too_many_wrong_keys",
    "requests_per_minute",
    "tokens_per_minute",
    "shutting_down",
    "head_timeout",
    "body_timeout",
    "queue_timeout",
    "first_token_timeout",
    "request_timeout",
    "slow_reader",
]
"""The limit that rejected or ended a request. It is the `code` of the error and a label of a metric."""

_TICKET = "ticket"
_LONGEST_RETRY_S = 60
_BYTES_PER_TOKEN = 4
"""Of English text, about."""
_FINISHES = 64
"""Number of finished requests from which the rate of completion is estimated."""


class Admission:
    """Tracks what all admitted requests hold, and decides whether to admit more.

    Call it only from the event loop.
    """

    def __init__(self, limits: Limits, max_batch: int, keys: KeyRing) -> None:
        self.limits = limits
        self.keys = keys
        self.requests = Quota(max_batch + limits.max_queued_requests, self._has_several)
        self.tokens = Quota(limits.max_queued_tokens, self._has_several)
        self.body_bytes = Quota(limits.max_queued_body_bytes, self._has_several)
        self.rejections: dict[Rejection, int] = dict.fromkeys(get_args(Rejection), 0)
        self.draining = False
        self._max_batch = max_batch
        self._tickets: set[Ticket] = set()
        self._finishes: deque[float] = deque(maxlen=_FINISHES)

    @property
    def is_idle(self) -> bool:
        """Whether all admitted requests have been answered."""
        return not self._tickets

    def enter(self, account: Account) -> "Ticket":
        """Admits a request. Raises `ApiError` (429) if a limit is reached."""
        ticket = Ticket(self, account)
        ticket.hold_answers(1)
        self._tickets.add(ticket)
        return ticket

    def leave(self, ticket: "Ticket") -> None:
        """Forgets a request that has been answered or whose client has disconnected."""
        self._tickets.discard(ticket)
        self._finishes.append(time.monotonic())

    def drain(self) -> None:
        """Rejects all new requests from now on."""
        self.draining = True

    def cut_off(self) -> None:
        """Ends all remaining requests with an error."""
        for ticket in self._tickets:
            ticket.fail(self.shutting_down())

    def count(self, reason: Rejection) -> None:
        """Counts a request that was rejected, or ended early, for this reason."""
        self.rejections[reason] += 1

    def refuse(
        self, reason: Rejection, message: str, status: int = 429, retry_after_s: float | None = None
    ) -> ApiError:
        """Counts the rejection and returns its error, with a Retry-After header."""
        self.count(reason)
        seconds = self.retry_after_s() if retry_after_s is None else max(1, math.ceil(retry_after_s))
        return ApiError(status, message, code=reason, headers={"retry-after": str(seconds)})

    def shutting_down(self) -> ApiError:
        self.count("shutting_down")
        headers = {"retry-after": "1", "connection": "close"}
        return ApiError(503, "this server is shutting down", code="shutting_down", headers=headers)

    def too_many_connections(self) -> ApiError:
        self.count("too_many_connections")
        headers = {"retry-after": "1", "connection": "close"}
        message = "this server has too many connections; try again later"
        return ApiError(503, message, code="too_many_connections", headers=headers)

    def retry_after_s(self) -> int:
        """Estimated seconds until the waiting requests are done, at the rate of the last ones: 1 to 60."""
        waiting = max(1, self.requests.held - self._max_batch)
        if len(self._finishes) < 2:
            return 1
        seconds_each = (time.monotonic() - self._finishes[0]) / len(self._finishes)
        return min(max(1, math.ceil(waiting * seconds_each)), _LONGEST_RETRY_S)

    def _has_several(self) -> bool:
        return self.keys.has_several


class Ticket:
    """The share of the limits that one HTTP request holds until it is answered."""

    def __init__(self, admission: Admission, account: Account) -> None:
        self.tenant = account.tenant
        self.arrived_at = time.monotonic()
        self.limits = admission.limits
        self._admission = admission
        self._account = account
        self._charged_requests = 0
        self._error: ApiError | None = None
        self._on_failure: Callable[[ApiError], None] | None = None
        self._answers = 0
        self._tokens = 0
        self._bytes = 0

    def hold_answers(self, count: int) -> None:
        """Holds places for `count` answers, and charges them to the key as so many requests.

        Raises `ApiError` (429) if the limit on waiting requests is reached, or the key's requests per minute.
        """
        self._charge_requests(count)
        self._answers = self._resized(self._admission.requests, self._answers, count)
        if self._answers < count:
            raise self._refuse("too_many_requests", "too many requests are waiting; try again later")

    def hold_tokens(self, count: int) -> None:
        """Holds `count` prompt tokens. Raises `ApiError` (429) if the limit on waiting prompt tokens is reached."""
        self._tokens = self._resized(self._admission.tokens, self._tokens, count)
        if self._tokens < count:
            raise self._refuse("too_many_tokens", "too many prompt tokens are waiting; try again later")

    def hold_bytes(self, count: int) -> None:
        """Holds `count` more bytes of the body. Raises `ApiError` (429) if the limit on waiting bytes is reached."""
        wanted = self._bytes + count
        self._bytes = self._resized(self._admission.body_bytes, self._bytes, wanted)
        if self._bytes < wanted:
            raise self._refuse("too_many_bytes", "too many bytes of request bodies are waiting; try again later")

    def charge_tokens(self, count: int) -> None:
        """Charges tokens that are about to be computed. Raises `ApiError` (429) beyond the key's tokens per minute."""
        rate = self._account.tokens
        if wait_s := rate.wait_s(count):
            message = f"only {rate.per_minute:.0f} tokens per minute are allowed; try again later"
            raise self._refuse("tokens_per_minute", message, wait_s)
        self.spend_tokens(count)

    def charge_body(self) -> None:
        """Charges the bytes of the body as tokens, for work on a text that no model computes. Raises as above."""
        self.charge_tokens(-(-self._bytes // _BYTES_PER_TOKEN))

    def spend_tokens(self, count: int) -> None:
        """Charges tokens that have been generated. An answer that has begun is not cut by its rate."""
        self._account.tokens.spend(count)
        self._account.total_tokens += count

    def _charge_requests(self, count: int) -> None:
        more = count - self._charged_requests
        rate = self._account.requests
        if wait_s := rate.wait_s(more):
            message = f"only {rate.per_minute:.0f} requests per minute are allowed; try again later"
            raise self._refuse("requests_per_minute", message, wait_s)
        rate.spend(more)
        self._account.total_requests += more
        self._charged_requests = count

    def _refuse(self, reason: Rejection, message: str, retry_after_s: float | None = None) -> ApiError:
        self._account.total_rejected += 1
        return self._admission.refuse(reason, message, retry_after_s=retry_after_s)

    def release_tokens(self) -> None:
        """Gives back the prompt tokens. Called when an answer has begun."""
        self._tokens = self._resized(self._admission.tokens, self._tokens, 0)

    def _resized(self, quota: Quota, held: int, wanted: int) -> int:
        """Replaces `held` by `wanted`, or by 0 if the quota does not allow it. Returns what is held now.

        `held` is given back first, because the quota admits any amount while nothing is held.
        """
        quota.give_back(self.tenant, held)
        return wanted if quota.take(self.tenant, wanted) else 0

    def count(self, reason: Rejection) -> None:
        """Counts that the request ends early for this reason."""
        self._admission.count(reason)

    def too_late(self, message: str) -> ApiError:
        """Counts a timeout in the queue, and returns its error."""
        return self._admission.refuse("queue_timeout", message, 503)

    def fail(self, error: ApiError) -> None:
        """Ends the request with this error."""
        self._error = error
        if self._on_failure is not None:
            self._on_failure(error)

    @contextmanager
    def failures(self, tell: Callable[[ApiError], None]) -> Generator[None]:
        """Within the block, calls `tell` once if the request has to end with an error."""
        self._on_failure = tell
        try:
            if self._error is not None:
                tell(self._error)
            yield
        finally:
            self._on_failure = None

    def close(self) -> None:
        """Gives everything back. Called when the request has been answered or its client has disconnected."""
        self._answers = self._resized(self._admission.requests, self._answers, 0)
        self._bytes = self._resized(self._admission.body_bytes, self._bytes, 0)
        self.release_tokens()
        self._admission.leave(self)


def keep_ticket(request: Request, ticket: Ticket) -> None:
    """Attaches the ticket to the request, for `ticket_of`."""
    request.scope.setdefault("state", {})[_TICKET] = ticket


def ticket_of(request: Request) -> Ticket:
    """The request's ticket."""
    ticket: Ticket = getattr(request.state, _TICKET)
    return ticket
