"""How signals end a real server: in good order, at once, and never with a traceback."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.api.serving import wait_until
from tests.command import serving
from tests.engine.test_process import gone_within
from tests.golden_files import BASE
from tests.test_cli import engine_of, loading
from tests.test_drain import SLOW_ENGINE, Stream, begin, status

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


STUCK = """
import runpy, time
from panacea import serving
def hang(*_):
    print("stuck", flush=True)
    while True:
        time.sleep(0.01)
serving.announcement = hang
runpy.run_module("tests.faults.panacea_with_faults", run_name="__main__")
"""


def rest_of(process: "subprocess.Popen[str]") -> str:
    """What the server wrote after its announcement. Waits for its end."""
    assert process.stderr is not None
    return process.stderr.read()


@pytest.mark.slow
def test_sighup_drains_like_sigterm() -> None:
    with serving("--model", str(BASE), command=SLOW_ENGINE) as (process, client):
        stream = Stream(client.base_url, n=8)
        begin([stream])
        engine = engine_of(process)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: status(client, "/ready") == 503)
        stream.join()
        assert stream.text
        assert process.wait(20) == 0
        assert gone_within(engine, 2)


@pytest.mark.slow
def test_nohup_keeps_a_server_alive_when_its_terminal_closes() -> None:
    with serving("--model", str(BASE), command=["nohup", *SLOW_ENGINE]) as (process, client):
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert status(client, "/ready") == 200


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGINT), (signal.SIGTERM,) * 3, (signal.SIGHUP,) * 2])
def test_further_signals_end_a_server_at_once_without_a_traceback(numbers: Sequence[signal.Signals]) -> None:
    with serving("--model", str(BASE), command=SLOW_ENGINE) as (process, client):
        several = [Stream(client.base_url, n=2) for _ in range(3)]
        begin(several)
        engine = engine_of(process)
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.02 if len(numbers) > 2 else 0.3)  # else the kernel joins two of the same kind
        output = rest_of(process)
        assert process.wait(5) == 128 + numbers[-1]
        assert gone_within(engine, 3)
        for stream in several:
            stream.join()
            assert stream.is_cut_off, stream.events[-3:]
        assert "Traceback" not in output
        assert "exception" not in output
        assert "Error" not in output, output


@pytest.mark.slow
def test_three_signals_while_the_model_loads_leave_nothing() -> None:
    process, engine = loading()
    for number in STOPPING:
        process.send_signal(number)
        time.sleep(0.02)
    _, output = process.communicate(timeout=10)
    # The later ones may reach an interpreter that ends, and has given its handlers back.
    assert abs(process.returncode) in {0, *STOPPING, *(128 + number for number in STOPPING)}
    assert b"Traceback" not in output
    assert gone_within(engine, 2)


@pytest.mark.slow
def test_a_server_whose_event_loop_is_stuck_still_ends_at_the_third_signal() -> None:
    command = [*SLOW_ENGINE[:1], "-c", STUCK, "serve", "--model", str(BASE), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"stuck\n"
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        assert process.wait(5) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_stopped_engine_dies_with_a_killed_server() -> None:
    with serving("--model", str(BASE), command=SLOW_ENGINE) as (process, _):
        engine = engine_of(process)
        os.kill(engine, signal.SIGSTOP)
        process.kill()
        try:
            assert gone_within(engine, 2)
        finally:
            with suppress(ProcessLookupError):
                os.kill(engine, signal.SIGKILL)


@pytest.mark.slow
def test_what_a_killed_server_left_is_cleaned_at_the_next_start(tmp_path: Path) -> None:
    environment = {"TMPDIR": str(tmp_path)}
    for name in ("panacea-01234567", "panacea-soak-012345"):
        (tmp_path / name).mkdir()
    (tmp_path / "panacea-soak-012345/mine").write_text("", "utf-8")
    (tmp_path / "panacea-link1234").symlink_to(tmp_path / "panacea-soak-012345")
    with serving("--model", str(BASE), command=SLOW_ENGINE, environment=environment) as (first, _):
        engine = engine_of(first)
        os.kill(engine, signal.SIGSTOP)
        first.kill()
        assert gone_within(engine, 2)
    before = folders(tmp_path)
    with serving("--model", str(BASE), command=SLOW_ENGINE, environment=environment) as (_, client):
        (own,) = folders(tmp_path) - before
        assert folders(tmp_path) == {"panacea-01234567", "panacea-soak-012345", "panacea-link1234", own}
        assert status(client, "/ready") == 200
    assert (tmp_path / "panacea-soak-012345/mine").exists()


def folders(place: Path) -> set[str]:
    return {path.name for path in place.glob("panacea-*")}
