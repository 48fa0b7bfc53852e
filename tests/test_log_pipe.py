"""A log that nobody reads holds up nothing: real pipes, real processes."""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from tests.api.serving import wait_until
from tests.engine.test_process import gone_within
from tests.golden_files import ADAPTER

PROGRAM = """
import logging, sys
from panacea.config import LogConfig
from panacea.logs import configure_logs
configure_logs(LogConfig("info", "json"))
for number in range({lines}):
    logging.getLogger("panacea.test").info("line", extra={{"fields": {{"number": number}}}})
print("written", flush=True)
{after}
"""


WITH_A_SHORT_QUEUE = [
    sys.executable,
    "-c",
    "from panacea import log_writer; log_writer.QUEUE_BYTES = 2000\nfrom panacea_commands.main import main; main()",
]
"""The `panacea` command, which need not be asked ten thousand times before its log overflows."""


@contextmanager
def pipe() -> Generator[tuple[int, int]]:
    """A small pipe's ends: to read from, to write into."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, getattr(fcntl, "F_SETPIPE_SZ", 1031), 4096)
    try:
        yield reading, writing
    finally:
        for end in (reading, writing):
            with suppress(OSError):
                os.close(end)


def run(program: str, stderr: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
    )


def test_lines_that_nobody_reads_are_dropped_and_the_process_ends_within_a_bound() -> None:
    with pipe() as (_, writing):
        process = run(PROGRAM.format(lines=30_000, after="print('error', file=sys.stderr)"), writing)
        assert process.communicate(timeout=60)[0] == "written\n"
        assert process.returncode == 0


def test_a_reader_that_comes_back_is_told_how_many_lines_were_lost() -> None:
    with pipe() as (reading, writing):
        after = "input(); logging.getLogger('panacea').warning('the last one')"
        process = run(PROGRAM.format(lines=30_000, after=after), writing)
        os.close(writing)
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        with os.fdopen(reading, encoding="utf-8", closefd=False) as log:
            numbers: list[int] = []
            lost = None
            for line in log:
                entry = json.loads(line)
                if "number" in entry:
                    assert lost is None
                    numbers.append(entry["number"])
                else:
                    lost = int(re.fullmatch(r"(\d+) log lines were lost: .*", entry["message"])[1])  # type: ignore[index]
                    assert entry["level"] == "warning"
                    break
            assert lost is not None
            assert numbers == list(range(len(numbers)))
            assert len(numbers) + lost == 30_000
            process.communicate("go\n", timeout=60)
            assert json.loads(log.read())["message"] == "the last one"


def test_the_last_lines_of_a_crash_reach_a_reader() -> None:
    with pipe() as (reading, writing):
        process = run(PROGRAM.format(lines=300, after="raise ValueError('canary')"), writing)
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8", closefd=False) as log:
            lines = log.read().splitlines()
        process.communicate(timeout=60)
        assert process.returncode == 1
        assert [json.loads(line)["number"] for line in lines[:-1]] == list(range(300))
        assert json.loads(lines[-1])["exception"].endswith("builtins.ValueError")


@pytest.mark.parametrize("moment", ["at the start", "later"])
def test_a_reader_that_died_ends_nothing(moment: str) -> None:
    with pipe() as (reading, writing):
        if moment == "at the start":
            os.close(reading)
        program = PROGRAM.format(lines=100, after="input(); print('more', file=sys.stderr); print('alive')")
        process = run(program, writing)
        assert process.stdout is not None
        if moment == "later":
            os.read(reading, 100)
            os.close(reading)
        assert process.stdout.readline() == "written\n"
        assert process.communicate("go\n", timeout=60)[0] == "alive\n"
        assert process.returncode == 0


def test_code_below_python_and_child_processes_do_not_block_either() -> None:
    after = "import os, subprocess; subprocess.run(['sh', '-c', 'head -c 100000 /dev/zero >&2']); print('alive')"
    with pipe() as (_, writing):
        process = run(PROGRAM.format(lines=100, after=after), writing)
        assert process.communicate(timeout=60)[0] == "written\nalive\n"


def test_the_pipe_stays_as_it_was_for_other_programs() -> None:
    with pipe() as (_, writing):
        run(PROGRAM.format(lines=1, after=""), writing).communicate(timeout=60)
        assert os.get_blocking(writing)


def test_a_closed_standard_error_is_no_obstacle() -> None:
    program = [sys.executable, "-c", PROGRAM.format(lines=3, after="print('alive')")]
    ran = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "written\nalive\n", "")


def fill(writing: int) -> None:
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 512)
    os.set_blocking(writing, True)


def metric(client: httpx2.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def refused(client: httpx2.Client, times: int) -> None:
    for _ in range(times):
        assert client.get("/nowhere").status_code == 404


@pytest.mark.slow
def test_a_server_whose_log_nobody_reads_starts_serves_counts_tells_and_ends() -> None:
    """The pipe is full before the server writes its first line, and its engine the first of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pipe() as (reading, writing):
        fill(writing)
        command = [*WITH_A_SHORT_QUEUE, "serve", "--adapter", str(ADAPTER), "--port", str(port)]
        process = subprocess.Popen(command, stderr=writing)
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                wait_until(lambda: answers(client), 60)
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii").split()
                assert len(children) == 2  # the engine, and the source of the text workers
                refused(client, 60)
                wait_until(lambda: metric(client, "panacea:log_lines_dropped_total") > 5)
                read = b""
                while b"log lines were lost" not in read:
                    read += os.read(reading, 1000)
                refused(client, 120)
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
                assert all(gone_within(int(child), 2) for child in children)
        finally:
            process.kill()
            process.wait()


def answers(client: httpx2.Client) -> bool:
    with suppress(httpx2.TransportError):
        return client.get("/ready").status_code == 200
    return False
