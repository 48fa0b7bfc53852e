"""What has arrived for a reader who takes it piece by piece."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Backlog(Generic[Item]):
    """A queue whose only reader is given up when it is too far behind.

    A reader that waits for the next item is not behind, however many arrive at once: it has had no chance to take them.
    One that is busy, writing to a client that does not read, is.
    """

    def __init__(self, limit: int) -> None:
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self._limit = limit
        self._is_waiting = False
        self.give_up: Callable[[], None] | None = None
        """Called once, when more than `limit` items wait for a busy reader. None waits for as long as it takes."""

    def put(self, item: Item) -> None:
        self._items.put_nowait(item)
        if not self._is_waiting and self._items.qsize() > self._limit and self.give_up is not None:
            give_up, self.give_up = self.give_up, None
            give_up()

    async def get(self) -> Item:
        """The oldest item that nobody has taken. Waits for one."""
        self._is_waiting = True
        try:
            return await self._items.get()
        finally:
            self._is_waiting = False
