"""A limit on an amount per minute: a bucket that refills evenly."""

import math
import time


class MinuteRate:
    """Allows `per_minute` units per minute on average, and as many at once after a pause.

    What was used drains at the allowed pace. One charge above the whole limit is allowed when nothing is left of
    earlier ones. It then takes several minutes to drain. So no request is too large, and the average still holds.
    """

    def __init__(self, per_minute: float) -> None:
        """`per_minute`: at least 1; infinity for no limit. It may be changed at any time."""
        self.per_minute = per_minute
        self._used = 0.0
        self._used_at = time.monotonic()

    @property
    def is_limited(self) -> bool:
        return math.isfinite(self.per_minute)

    @property
    def remaining(self) -> int:
        """Units that can be used now. There must be a limit."""
        return max(0, math.floor(self.per_minute - self._drained()))

    @property
    def reset_s(self) -> float:
        """Seconds until everything has drained. There must be a limit."""
        return self._drained() * 60 / self.per_minute

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount` may be used; 0 if it may be now."""
        if not self.is_limited:
            return 0.0
        excess = self._drained() + min(amount, self.per_minute) - self.per_minute
        return max(0.0, excess * 60 / self.per_minute)

    def spend(self, amount: float) -> None:
        """Uses `amount`, also beyond the limit: what has been computed is not refused afterwards."""
        if self.is_limited:
            self._used = self._drained() + amount

    def _drained(self) -> float:
        """What is left of all that was used. There must be a limit."""
        now = time.monotonic()
        self._used = max(0.0, self._used - (now - self._used_at) * self.per_minute / 60)
        self._used_at = now
        return self._used
