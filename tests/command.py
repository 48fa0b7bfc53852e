"""`panacea serve` as a user starts it."""

import os
import re
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

import httpx2

PANACEA = [sys.executable, "-m", "panacea_commands"]


@contextmanager
def serving(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    log: list[str] | None = None,
    command: Sequence[str] = PANACEA,
) -> Generator[tuple["subprocess.Popen[str]", httpx2.Client]]:
    """`panacea serve` on a free port, and a client of it. What it writes before it serves goes into `log`."""
    process = subprocess.Popen(
        [*command, "serve", "--port", "0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if log is not None:
                log.append(line)
            if match := re.search(r'Panacea serves .* on (http://[^\s"]+)', line):
                break
        else:
            raise AssertionError(f"the server ended with code {process.wait()}")
        with httpx2.Client(base_url=match[1], timeout=30) as client:
            yield process, client
    finally:
        process.terminate()
        process.communicate()
