"""The requests that wait for a slot, in the order in which they get one."""

from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import chain

from panacea.engine.sequence import Request


class WaitingQueue:
    """Tenants take turns, each with its oldest request; a queue of one tenant is first come, first served.

    So a request waits for one request of each other tenant for every one of its own tenant's that is before it, however
    many the others have. Requests that ran before and lost their place come before all of them: whoever comes later
    would otherwise keep them from ever ending.
    """

    def __init__(self) -> None:
        self._preempted: deque[Request] = deque()
        self._lines: OrderedDict[str, deque[Request]] = OrderedDict()  # by tenant; the first one's turn is next

    def __len__(self) -> int:
        return len(self._preempted) + sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Request]:
        return chain(self._preempted, *self._lines.values())

    @property
    def first(self) -> Request:
        """Whose turn it is. The queue must not be empty."""
        return (self._preempted or next(iter(self._lines.values())))[0]

    def append(self, request: Request) -> None:
        """A new request comes last in its tenant's line; a new tenant last of all."""
        self._lines.setdefault(request.tenant, deque()).append(request)

    def put_back(self, request: Request) -> None:
        """A request that lost its place comes first of all."""
        self._preempted.appendleft(request)

    def pop(self) -> Request:
        """Takes the first one out; the next turn is another tenant's."""
        if self._preempted:
            return self._preempted.popleft()
        tenant = next(iter(self._lines))
        request = self._lines[tenant].popleft()
        self._lines.move_to_end(tenant)
        self._close_if_empty(tenant)
        return request

    def remove(self, request: Request) -> None:
        """Takes a request out that is in the queue, wherever it is."""
        if request in self._preempted:
            self._preempted.remove(request)
        else:
            self._lines[request.tenant].remove(request)
            self._close_if_empty(request.tenant)

    def arrived_before(self, moment: float) -> list[Request]:
        """The requests that have waited for their first step since before then."""
        late: list[Request] = []
        for line in self._lines.values():
            for request in line:  # oldest first
                if request.arrived_at >= moment:
                    break
                late.append(request)
        return late

    def _close_if_empty(self, tenant: str) -> None:
        if not self._lines[tenant]:
            del self._lines[tenant]
