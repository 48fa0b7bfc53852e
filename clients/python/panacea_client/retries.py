"""Which failures are worth another attempt, and when."""

from random import uniform

import httpx2

from panacea_client.errors import StatusError

RETRIED_STATUSES = frozenset({408, 409, 429})
"""And all from 500 on."""
MAX_RETRY_AFTER_S = 60.0
"""A server that asks for more is not waited for: its error is raised, which says how long."""
_FIRST_DELAY_S = 0.5
_MAX_DELAY_S = 8.0


def delay_before_retry_s(failure: httpx2.RequestError | StatusError, attempt: int) -> float | None:
    """How long to wait after attempt number `attempt`, from 0; None if another one would not help.

    A lost connection is tried again even behind a whole request: asking twice changes nothing on the server. A server
    that was silent for the whole timeout is not, because it may be at work on the answer still, and would be twice.
    """
    # A quarter at random, or clients that failed together would come back together.
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
