"""The free slots of the preference table. Plain integers, no tensors."""

from collections import deque
from collections.abc import Iterable


class SlotPool:
    """Hands out slots and takes them back.

    Freed slots go to the end of the queue. A slot that is used after its release therefore fails in a test that fills
    the pool, instead of working by luck.
    """

    def __init__(self, numbers: range) -> None:
        self._all = numbers
        self._free = deque(numbers)
        self._is_free = set(numbers)

    def __len__(self) -> int:
        """How many slots are free."""
        return len(self._free)

    @property
    def size(self) -> int:
        return len(self._all)

    def allocate(self) -> int:
        """A free slot. The caller has checked that there is one."""
        number = self._free.popleft()
        self._is_free.remove(number)
        return number

    def release(self, numbers: Iterable[int]) -> None:
        """Takes slots back. Raises `ValueError` for a slot that is free already or not in this pool."""
        for number in numbers:
            if number in self._is_free or number not in self._all:
                raise ValueError(f"slot {number} was released, but no sequence holds it")
            self._is_free.add(number)
            self._free.append(number)

    def check_integrity(self, owned: Iterable[int]) -> None:
        """Raises `ValueError` unless every slot is either free or in `owned`, exactly once."""
        everything = sorted([*self._free, *owned])
        if everything != list(self._all):
            raise ValueError(f"a slot is lost or owned twice: {everything} is not {self._all}")
