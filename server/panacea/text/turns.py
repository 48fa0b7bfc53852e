"""Who may use one of a few places next: tenants take turns."""

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple


class _Lane(NamedTuple):
    tenant: str
    is_long: bool


class Turns:
    """Hands out `places`. In each lane the first come is the first served, and lanes take turns.

    Each tenant has a lane for short jobs and one for long jobs. One place is kept free of long jobs, so that short jobs
    never wait for them. With several tenants, a tenant may hold at most as many places as remain free, and of the
    places for long jobs too. So a place is left for another tenant.
    """

    def __init__(self, places: int, *, is_shared: Callable[[], bool]) -> None:
        """`is_shared` says whether there can be more than one tenant now."""
        self._places = places
        self._is_shared = is_shared
        self._held: Counter[_Lane] = Counter()
        self._lanes: OrderedDict[_Lane, deque[asyncio.Future[None]]] = OrderedDict()
        self.waited_s = 0.0
        """Seconds that all jobs together have waited."""

    @property
    def waiting(self) -> int:
        """Number of jobs that wait."""
        return sum(map(len, self._lanes.values()))

    @asynccontextmanager
    async def turn(self, tenant: str, *, is_long: bool) -> AsyncGenerator[None]:
        """Waits for a place and holds it within the block."""
        lane = _Lane(tenant, is_long)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lanes.setdefault(lane, deque()).append(place)
        self._give()
        begin = time.monotonic()
        try:
            await place
            self.waited_s += time.monotonic() - begin
            yield
        finally:
            # A caller may be cancelled before it has the place, or just after.
            if not place.cancelled():
                self._held[lane] -= 1
                if not self._held[lane]:
                    del self._held[lane]  # keep no entry for every tenant ever seen
            elif place in self._lanes.get(lane, ()):
                self._lanes[lane].remove(place)
                if not self._lanes[lane]:
                    del self._lanes[lane]
            self._give()

    def _give(self) -> None:
        """Gives free places to the lanes whose turn it is."""
        while lane := next((lane for lane in self._lanes if self._may_hold_more(lane)), None):
            waiting = self._lanes[lane]
            place = waiting.popleft()
            if waiting:
                self._lanes.move_to_end(lane)
            else:
                del self._lanes[lane]
            if not place.cancelled():
                self._held[lane] += 1
                place.set_result(None)

    def _may_hold_more(self, lane: _Lane) -> bool:
        long = {held: count for held, count in self._held.items() if held.is_long}
        return self._allows(lane, self._places, self._held) and (
            not lane.is_long or self._allows(lane, self._places - 1, long)
        )

    def _allows(self, lane: _Lane, places: int, held: Mapping[_Lane, int]) -> bool:
        free = places - sum(held.values())
        own = sum(count for other, count in held.items() if other.tenant == lane.tenant)
        return free > 0 and (not own or own < free or not self._is_shared())
