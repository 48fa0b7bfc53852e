"""`panacea-chat` with a person in front of it: a process on a pseudo-terminal."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress

CHAT = [sys.executable, "-c", "from panacea_client.cli import main; main()"]

# Ctrl-C reaches a program through its controlling terminal, which a new session's leader takes for itself.
_WITH_CONTROLLING_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class TypingPerson:
    """Reads what is on the screen and types."""

    def __init__(self, process: "subprocess.Popen[bytes]", terminal: int) -> None:
        self._process = process
        self._terminal = terminal
        self._seen = ""
        self.screen = ""
        """All that was ever written."""

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def sees(self, text: str, limit_s: float = 15.0) -> str:
        """Waits for `text` behind what was seen last, and returns what came up to it."""
        end = time.monotonic() + limit_s
        while text not in self._seen:
            if time.monotonic() > end or not self._read():
                raise AssertionError(f"no {text!r} on the screen: {self.screen!r}")
        before, _, self._seen = self._seen.partition(text)
        return before

    def interrupts(self, text: str) -> None:
        """Presses Ctrl-C until `text` is on the screen.

        Python notices a signal between the prompt and the wait for a key only at the next key or signal.
        """
        for _ in range(15):
            self.type("\x03")
            with suppress(AssertionError):
                self.sees(text, limit_s=1.0)
                return
        raise AssertionError(f"no {text!r} on the screen: {self.screen!r}")

    def leaves(self) -> int:
        """Waits for the program's end; returns its exit code."""
        while self._read():
            pass
        return self._process.wait(10)

    def _read(self) -> bool:
        if select.select([self._terminal], [], [], 0.1)[0]:
            try:
                data = os.read(self._terminal, 65536)
            except OSError:  # the other end is closed
                return False
            self._seen += data.decode(errors="replace")
            self.screen += data.decode(errors="replace")
        return True


@contextmanager
def typing_person(url: str, *arguments: str) -> Generator[TypingPerson]:
    terminal, end = pty.openpty()
    environment = {**os.environ, "PANACEA_BASE_URL": url, "TERM": "dumb", "COLUMNS": "100", "LINES": "40"}
    command = [sys.executable, "-c", _WITH_CONTROLLING_TERMINAL, *CHAT, *arguments]
    process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end, start_new_session=True, env=environment)
    os.close(end)
    try:
        yield TypingPerson(process, terminal)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
