"""Standard error as a stream that nobody has to wait for, however slowly its other end is read."""

import io
import os
import select
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

QUEUE_BYTES = 1 << 20
"""Most bytes that wait for the reader, besides the 64 KiB of a pipe: about 8,000 log lines."""
EXIT_LIMIT_S = 1.0
"""How long a process that ends waits for the reader of its last lines."""


class LogWriter(io.TextIOBase):
    """Takes text at once and passes it on from a thread. Once the queue is full, it drops and counts lines.

    It then drops everything until the reader has read all that waits. `notice` makes the line that is written in the
    place of the lost ones, from their number. A reader that has died loses all lines, and nothing else happens.
    """

    def __init__(self, stream: TextIO, notice: Callable[[int], str]) -> None:
        """`stream` must not be written to by anything else afterwards."""
        self.notice = notice
        self.dropped = 0
        """Lines that were lost so far."""
        self._stream = stream
        self._descriptor = _descriptor_of(stream)
        if self._descriptor is not None:
            _never_block(self._descriptor)
        self._changed = threading.Condition()  # reentrant: garbage collection in the midst of `write` may log
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._lost = 0
        self._is_line_begun = False
        self._is_idle = True
        self._thread: threading.Thread | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]  # it is fixed here
        return "utf-8"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str, /) -> int:
        """Never waits. The text is lost if too much waits already."""
        data = text.encode("utf-8", "backslashreplace")
        with self._changed:
            if self._lost or self._bytes + len(data) > QUEUE_BYTES:
                lines = data.count(b"\n")
                self._lost += lines
                self.dropped += lines
            elif data:
                self._queue.append(data)
                self._bytes += len(data)
                self._is_line_begun = not data.endswith(b"\n")
                self._is_idle = False
            if self._thread is None:
                self._thread = threading.Thread(target=self._pass_on, name="log-writer", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return len(text)

    def wait_until_written(self, limit_s: float = EXIT_LIMIT_S) -> bool:
        """Waits until everything is passed on, or `limit_s` have passed. Returns whether everything is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_idle and not self._lost, limit_s)

    def _pass_on(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    if self._lost:
                        begin = "\n" if self._is_line_begun else ""
                        self._queue.append((begin + self.notice(self._lost) + "\n").encode())
                        self._lost, self._is_line_begun = 0, False
                        continue
                    self._bytes, self._is_idle = 0, True
                    self._changed.notify_all()
                    self._changed.wait()
                data = self._queue.popleft()
            is_written = self._put(data)
            with self._changed:
                self._bytes -= len(data)
                if not is_written:
                    self.dropped += data.count(b"\n")

    def _put(self, data: bytes) -> bool:
        """Waits for the reader. False: there is none, or no space on the disk."""
        if self._descriptor is None:
            self._stream.write(data.decode())
            return True
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                poll.poll()
            except OSError:
                return False
        return True


def _descriptor_of(stream: TextIO) -> int | None:
    """The file that is behind the stream. None for a stream in memory."""
    with suppress(OSError, ValueError):
        stream.flush()
        return stream.fileno()
    return None


def _never_block(descriptor: int) -> None:
    """Makes writing to a pipe fail where it would block, also for libraries' own code and for child processes.

    The pipe is opened once more, because the flag of the present opening is shared with other programs. Without
    `/proc`, or if another user made the pipe, such code blocks as before. Python's own output never does.
    """
    with suppress(OSError):
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode) and sys.platform == "linux":
            again = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.dup2(again, descriptor)
            os.close(again)
