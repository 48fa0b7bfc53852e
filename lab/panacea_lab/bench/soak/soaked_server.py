"""The server of a soak: started by a command, and ended with the soak."""

import re
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from panacea_lab.bench.measurement import BenchError

START_LIMIT_S = 120.0
EXIT_LIMIT_S = 30.0


@dataclass(frozen=True)
class StartedServer:
    """A running server."""

    url: str
    pid: int
    log: Path
    """All that it writes."""


@contextmanager
def started(command: Sequence[str]) -> Generator[StartedServer]:
    """The server, once it says where it serves. Raises `BenchError` with its last words if it ends."""
    with tempfile.TemporaryDirectory(prefix="panacea-soak-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:  # not a pipe: an unread pipe fills, and then the server blocks
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            yield StartedServer(_address(process, log), process.pid, log)
        finally:
            process.terminate()
            try:
                process.wait(EXIT_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        ended = process.poll() is not None
        said = log.read_text("utf-8", errors="replace")
        if match := re.search(r' serves .* on (http://[^\s"]+)', said):
            return match[1]
        if ended:
            last = (said.strip().splitlines() or ["nothing"])[-1]
            raise BenchError(f"the server ended with code {process.returncode}; its last line: {last}")
        time.sleep(0.05)
    raise BenchError(f"the server did not start within {START_LIMIT_S:g} s")
