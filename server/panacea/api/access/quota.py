"""An amount of something that all tenants share."""

from collections import Counter


class Quota:
    """Bounds what all tenants hold together and, if there can be several, keeps one from taking it all.

    A tenant may hold as much as it leaves free for others: one that floods gets half, two get a third each, and whoever
    comes next still finds room.
    """

    def __init__(self, limit: int, *, shared: bool) -> None:
        """`shared`: whether there can be more than one tenant."""
        self.limit = limit
        self.held = 0
        self._shared = shared
        self._held_by: Counter[str] = Counter()

    def take(self, tenant: str, amount: int) -> bool:
        """Whether `tenant` got so much more. It does where nobody holds anything, however much it is."""
        own = self._held_by[tenant] if self._shared else 0
        if self.held and own + amount > self.limit - self.held:
            return False
        self.held += amount
        self._held_by[tenant] += amount
        return True

    def give_back(self, tenant: str, amount: int) -> None:
        """`tenant` holds so much less."""
        self.held -= amount
        self._held_by[tenant] -= amount
        if not self._held_by[tenant]:
            del self._held_by[tenant]  # or it would remember everyone
