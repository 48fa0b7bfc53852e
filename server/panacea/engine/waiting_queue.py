"""The sequences that wait for a slot, in the order in which they get one."""

from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import chain

from panacea.engine.sequence import Sequence


class WaitingQueue:
    """Tenants take turns; each turn admits the tenant's oldest sequence. One tenant alone is first come, first served.

    A sequence therefore waits for at most one sequence of each other tenant per sequence of its own tenant before it,
    however many the other tenants have queued. Preempted sequences come before all others. Otherwise new arrivals
    could keep them from ever finishing.
    """

    def __init__(self) -> None:
        self._preempted: deque[Sequence] = deque()
        self._lines: OrderedDict[str, deque[Sequence]] = OrderedDict()  # by tenant; the first tenant has the next turn

    def __len__(self) -> int:
        return len(self._preempted) + sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Sequence]:
        return chain(self._preempted, *self._lines.values())

    @property
    def first(self) -> Sequence:
        """The sequence that is admitted next. The queue must not be empty."""
        return (self._preempted or next(iter(self._lines.values())))[0]

    def append(self, sequence: Sequence) -> None:
        """Queues a new sequence behind the others of its tenant. A new tenant gets the last turn."""
        self._lines.setdefault(sequence.request.tenant, deque()).append(sequence)

    def requeue(self, sequence: Sequence) -> None:
        """Queues a preempted sequence before all others."""
        self._preempted.appendleft(sequence)

    def pop(self) -> Sequence:
        """Removes and returns the first sequence. The next turn goes to another tenant."""
        if self._preempted:
            return self._preempted.popleft()
        tenant = next(iter(self._lines))
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

    def _close_if_empty(self, tenant: str) -> None:
        if not self._lines[tenant]:
            del self._lines[tenant]
