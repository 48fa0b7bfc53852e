"""The signals that end a server: the first one drains it, the second one cuts it off, the third one kills it."""

import asyncio
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Self


class StopSignals:
    """Handles SIGINT, SIGTERM and SIGHUP in the main thread, from the beginning of the block to the process's end.

    The first two call `on_signal` in the event loop. The third one ends the process wherever it is, even if the event
    loop stands still. So does any further one after the block, when only the interpreter has to end.
    """

    def __init__(self) -> None:
        self.on_signal: Callable[[], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._count = 0
        self._number = 0
        self._is_over = False

    @property
    def exit_code(self) -> int:
        """0, or 128 plus the signal's number after a second signal, because that one cut requests off."""
        return 128 + self._number if self._count > 1 else 0

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup ignores SIGHUP on purpose. An ignored SIGINT is a shell's way to start a program in the background.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self._count, self._number = self._count + 1, number
        if self._count > 2 or self._is_over:
            os._exit(128 + number)
        self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if self.on_signal is not None:
            self.on_signal()
