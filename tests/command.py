"""The `panacea` command as a user starts it."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass

import httpx2

from panacea_commands import main as cli

PANACEA = [sys.executable, "-m", "panacea_commands"]


@dataclass(frozen=True)
class Finished:
    """A command that has run in this process."""

    code: int
    out: str
    err: str


def run_panacea(*arguments: str) -> Finished:
    """Runs a command in this process, where tests can replace its parts."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.run(arguments)
    return Finished(code, out.getvalue(), err.getvalue())


def help_of(*command: str) -> str:
    """The text of a command's --help as one line, whatever the terminal's width."""
    return " ".join(run_panacea(*command, "--help").out.replace("│", " ").split())


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
