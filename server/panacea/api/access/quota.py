"""A limited amount that all tenants share."""

from collections import Counter
from collections.abc import Callable


class Quota:
    """Limits what all tenants hold together. With several tenants, it also limits the share of each.

    A tenant may hold at most as much as remains free. So one tenant alone gets half of the limit, two get a third each,
    and there is always room for another tenant.
    """

    def __init__(self, limit: int, is_shared: Callable[[], bool]) -> None:
        """`is_shared` says whether there can be more than one tenant now."""
        self.limit = limit
        self.held = 0
        self._is_shared = is_shared
        self._held_by: Counter[str] = Counter()

    def take(self, tenant: str, amount: int) -> bool:
        """Takes `amount` for `tenant` and returns whether this was allowed. Any amount is, while nothing is held."""
        own = self._held_by[tenant] if self._is_shared() else 0
        if self.held and own + amount > self.limit - self.held:
            return False
        self.held += amount
        self._held_by[tenant] += amount
        return True

    def give_back(self, tenant: str, amount: int) -> None:
        """Returns `amount` of what `tenant` holds."""
        self.held -= amount
        self._held_by[tenant] -= amount
        if not self._held_by[tenant]:
            del self._held_by[tenant]  # keep no entry for every tenant ever seen
