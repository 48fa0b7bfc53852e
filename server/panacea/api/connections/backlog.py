"""A queue that gives up a reader that falls too far behind."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Backlog(Generic[Item]):
    """A queue with one reader. If more than `limit` items wait for a busy reader, it calls `give_up`.

    A reader that is waiting in `get` is not behind, however many items arrive at once, because it had no chance to take
    them. A reader is behind if it is busy writing to a client that does not read.
    """

    def __init__(self, limit: int) -> None:
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self._limit = limit
        self._is_waiting = False
        self.give_up: Callable[[], None] | None = None
        """Called once, when more than `limit` items wait for a busy reader. If None, the queue is unlimited."""

    def put(self, item: Item) -> None:
        self._items.put_nowait(item)
        if not self._is_waiting and self._items.qsize() > self._limit and self.give_up is not None:
            give_up, self.give_up = self.give_up, None
            give_up()

    async def get(self) -> Item:
        """The oldest item in the queue. Waits until there is one."""
        self._is_waiting = True
        try:
            return await self._items.get()
        finally:
            self._is_waiting = False
