"""The sequences that wait for a slot, in the order in which they get one."""

from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import chain

from panacea.engine.sequence import Sequence


class WaitingQueue:
    """The next turn goes to the tenant that was served the fewest tokens. A turn admits its oldest sequence.

    This is the virtual token counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024). Tenants
    that always wait get equal numbers of tokens in the long run, however many answers they ask for and however long
    those are. A tenant that comes back begins at the least count of those who wait, less what it was behind when it
    last waited. So it saves up nothing while it does not wait. A waiting tenant's count stays the same while others
    grow, so that its turn comes. Between equal counts, the tenant whose last turn is the longest ago is first. One
    tenant alone is first come, first served.

    Preempted sequences come before all others. Otherwise new arrivals could keep them from ever finishing.
    """

    def __init__(self) -> None:
        self._preempted: deque[Sequence] = deque()
        self._lines: OrderedDict[str, deque[Sequence]] = OrderedDict()  # by tenant; the last turn is at the end
        self._served: dict[str, int] = {}
        """Tokens of each tenant, by the tenants' common virtual clock."""
        self._behind: dict[str, int] = {}
        """Of tenants that do not wait: by how much they were behind the others when the last of theirs left."""
        self._clock = 0
        """Count of the tenant that had the last turn, before it."""

    def __len__(self) -> int:
        return len(self._preempted) + sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Sequence]:
        return chain(self._preempted, *self._lines.values())

    @property
    def first(self) -> Sequence:
        """The sequence that is admitted next. The queue must not be empty."""
        return (self._preempted or self._lines[self._next_tenant()])[0]

    def append(self, sequence: Sequence) -> None:
        """Queues a new sequence behind the others of its tenant."""
        tenant = sequence.request.tenant
        if tenant not in self._lines:
            least = self._least() - self._behind.pop(tenant, 0)
            self._served[tenant] = max(self._served.get(tenant, 0), least)
            self._lines[tenant] = deque()
        self._lines[tenant].append(sequence)

    def charge(self, tenant: str, tokens: int) -> None:
        """Counts tokens that are computed for a tenant whose sequence has left the queue."""
        self._served[tenant] = self._served.get(tenant, self._clock) + tokens

    def forget_charges(self) -> None:
        """Makes all tenants equal. Called when nothing waits or runs, so that past tenants take no memory."""
        self._served.clear()
        self._behind.clear()
        self._clock = 0

    def requeue(self, sequence: Sequence) -> None:
        """Queues a preempted sequence before all others."""
        self._preempted.appendleft(sequence)

    def pop(self) -> Sequence:
        """Removes and returns the first sequence."""
        if self._preempted:
            return self._preempted.popleft()
        tenant = self._next_tenant()
        self._clock = max(self._clock, self._served[tenant])
        sequence = self._lines[tenant].popleft()
        self._lines.move_to_end(tenant)
        self._close_if_empty(tenant)
        return sequence

    def remove(self, sequence: Sequence) -> None:
        """Removes a sequence from anywhere in the queue."""
        if sequence in self._preempted:
            self._preempted.remove(sequence)
        else:
            self._lines[sequence.request.tenant].remove(sequence)
            self._close_if_empty(sequence.request.tenant)

    def arrived_before(self, moment: float) -> list[Sequence]:
        """The sequences that arrived before `moment` and have not had a first step."""
        late: list[Sequence] = []
        for line in self._lines.values():
            for sequence in line:  # oldest first
                if sequence.arrived_at >= moment:
                    break
                late.append(sequence)
        return late

    def _next_tenant(self) -> str:
        return min(self._lines, key=self._served.__getitem__)  # the first of several

    def _least(self) -> int:
        return min((self._served[tenant] for tenant in self._lines), default=self._clock)

    def _close_if_empty(self, tenant: str) -> None:
        if not self._lines[tenant]:
            del self._lines[tenant]
            self._behind[tenant] = max(0, self._least() - self._served[tenant])
