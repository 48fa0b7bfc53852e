"""Decides which failures are retried, and after which delay."""

from random import uniform

import httpx2

from panacea_client.errors import StatusError

RETRIED_STATUSES = frozenset({408, 409, 429})
"""All statuses from 500 on are retried too."""
MAX_RETRY_AFTER_S = 60.0
"""If the server asks for a longer wait, its error is raised instead, with `retry_after_s`."""
_FIRST_DELAY_S = 0.5
_MAX_DELAY_S = 8.0


def delay_before_retry_s(failure: httpx2.RequestError | StatusError, attempt: int) -> float | None:
    """Seconds to wait after attempt number `attempt` (from 0). None if the failure must not be retried.

    A lost connection is retried even after the whole request was sent, because a request changes nothing on the server.
    A timeout is not retried: the server may still be computing the answer, and would compute it twice.
    """
    # A random part of up to a quarter, so that clients that failed together do not retry together.
    backoff_s = min(_FIRST_DELAY_S * 2.0 ** min(attempt, 8), _MAX_DELAY_S) * uniform(0.75, 1.0)  # noqa: S311
    match failure:
        case StatusError():
            if failure.status not in RETRIED_STATUSES and failure.status < 500:
                return None
            if failure.retry_after_s is None:
                return backoff_s
            if failure.retry_after_s > MAX_RETRY_AFTER_S:
                return None
            return failure.retry_after_s * uniform(1.0, 1.1)  # noqa: S311
        case httpx2.ConnectError() | httpx2.ConnectTimeout():
            return backoff_s
        case httpx2.NetworkError() | httpx2.RemoteProtocolError() | httpx2.ProxyError():
            return backoff_s
        case _:
            return None
