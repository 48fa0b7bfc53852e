"""Who owns which slot of the preference table. Plain integers, no tensors."""

from collections import deque
from collections.abc import Iterable


class Pool:
    """The free ones of a fixed set of numbered things, handed out and taken back.

    Freed numbers go to the end of the queue: a slot that is used wrongly after its owner left shows late and loudly
    in a test that fills the pool, not at once by luck.
    """

    def __init__(self, numbers: range) -> None:
        self._all = numbers
        self._free = deque(numbers)
        self._is_free = set(numbers)

    def __len__(self) -> int:
        """How many are free."""
        return len(self._free)

    @property
    def size(self) -> int:
        return len(self._all)

    def take(self) -> int:
        """One that was free. The caller has looked that there is one."""
        number = self._free.popleft()
        self._is_free.remove(number)
        return number

    def give_back(self, numbers: Iterable[int]) -> None:
        """Takes numbers back. Raises `ValueError` for one that is free already or none of this pool's."""
        for number in numbers:
            if number in self._is_free or number not in self._all:
                raise ValueError(f"{number} was given back, but nobody has it")
            self._is_free.add(number)
            self._free.append(number)

    def check_integrity(self, owned: Iterable[int]) -> None:
        """Raises `ValueError` unless every number is either free or among `owned`, and none is twice."""
        everything = sorted([*self._free, *owned])
        if everything != list(self._all):
            raise ValueError(f"lost or owned twice: {everything} is not {self._all}")
