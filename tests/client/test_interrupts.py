"""Ctrl-C, in a process of its own: what is waited for ends at once, here and on the server."""

import signal
import subprocess
import sys
import time

import pytest

from tests.api.fake_engine import FakeEngine
from tests.api.serving import Served, wait_until

PROGRAM = """
import sys
from panacea_client import Panacea
with Panacea(sys.argv[1]) as client:
    print("begin", flush=True)
    try:
        {}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "call",
    [
        "client.chat('Hello')",
        "list(client.stream('Hello'))",
        "client.compare('Hello', [None] * 5, concurrency=3)",
        "client.sweep('Hello')",
    ],
)
def test_ctrl_c_ends_a_call_and_the_servers_work(server: Served, engine: FakeEngine, call: str) -> None:
    engine.prefill_s = 60
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(call), server.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(lambda: engine.live > 0, 20)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=10)
    assert time.monotonic() - begun < 2
    assert output.splitlines() == ["begin", "interrupted"]
    assert process.returncode == 0
    wait_until(lambda: engine.live == 0)


def test_a_comparison_works_where_an_event_loop_runs_already(server: Served) -> None:
    """As in Jupyter."""
    program = """
import asyncio, sys
from panacea_client import Panacea
async def cell():
    with Panacea(sys.argv[1]) as client:
        print(len(client.compare("Hello", [None, [1, 0, 0]], max_tokens=2)))
asyncio.run(cell())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, server.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stdout == "2\n"


def test_a_client_that_is_never_closed_leaves_nothing_to_complain_of(server: Served) -> None:
    program = """
import sys
from panacea_client import Panacea
client = Panacea(sys.argv[1])
client.chat("Hello", max_tokens=2)
client.compare("Hello", [None, [1, 0, 0]], max_tokens=2)
for piece in client.stream("Hello"):
    break
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, server.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == ""
