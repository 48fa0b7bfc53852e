"""When the supervisor starts an engine again, and when it waits before it does."""

import asyncio
import itertools
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from panacea.config import EngineConfig, Supervision
from panacea.engine.client import EngineClient
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.engine.supervisor import Supervisor
from panacea.errors import ConfigError, EngineDeadError, EngineError
from tests.engine.test_process import alive, gone_within
from tests.faults.holdings import Holdings
from tests.golden_files import BASE

CONFIG = EngineConfig(model=BASE)
COMMAND = [sys.executable, "-m", "tests.faults.faulty_engine"]
SUPERVISION = Supervision(backoff_s=0.2, backoff_limit_s=0.4)


async def until(condition: object, limit_s: float = 20) -> None:
    assert callable(condition)
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


async def kill(supervisor: Supervisor) -> float:
    """Ends the engine and waits for the next one: how long that took."""
    restarts, begin = supervisor.restarts, time.monotonic()
    assert supervisor.pid is not None
    os.kill(supervisor.pid, signal.SIGKILL)
    await until(lambda: supervisor.restarts > restarts)
    return time.monotonic() - begin


@pytest.mark.slow
def test_engines_that_fail_again_and_again_are_started_after_ever_longer_pauses() -> None:
    starts: list[float] = []

    async def launch() -> EngineClient:
        starts.append(time.monotonic())
        if len(starts) in (2, 3, 4, 5):
            raise EngineError("the device is gone")
        return await EngineClient.start(CONFIG, SUPERVISION, COMMAND)

    async def run() -> None:
        supervisor = await Supervisor.start(CONFIG, SUPERVISION, launch)
        try:
            await kill(supervisor)
        finally:
            await supervisor.close()

    asyncio.run(run())
    pauses = [after - before for before, after in itertools.pairwise(starts[1:])]
    for pause, expected in zip(pauses, (0.2, 0.4, 0.4, 0.4), strict=True):
        assert expected <= pause
    assert pauses[-1] < 1.6, "0.4 is the longest, not doubled any more"


@pytest.mark.slow
def test_an_engine_that_served_for_a_while_is_followed_at_once() -> None:
    limits = replace(SUPERVISION, backoff_s=3.0, backoff_limit_s=3.0, healthy_s=1.5)

    async def run() -> None:
        supervisor = await Supervisor.start(CONFIG, limits, lambda: EngineClient.start(CONFIG, limits, COMMAND))
        try:
            for _ in range(2):
                await asyncio.sleep(1.6)
                assert await kill(supervisor) < 3
            assert await kill(supervisor) > 3, "this one had only just begun"
        finally:
            await supervisor.close()

    asyncio.run(run())


def test_what_cannot_load_at_the_first_start_is_the_callers_to_hear_of() -> None:
    config = EngineConfig(model=Path("gone"))

    async def run() -> None:
        with pytest.raises(EngineError, match="the disk is gone"):
            await Supervisor.start(config, SUPERVISION, lambda: EngineClient.start(config, SUPERVISION, COMMAND))

    asyncio.run(run())


@pytest.mark.parametrize("moment", ["served", "starting", "pausing"])
def test_closing_leaves_no_process_whatever_goes_on(
    moment: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    limits = replace(SUPERVISION, backoff_s=30.0, backoff_limit_s=30.0)
    pids: list[int] = []

    async def launch() -> EngineClient:
        if moment == "pausing" and pids:
            pids.append(0)
            raise EngineError("not yet")
        engine = await EngineClient.start(CONFIG, limits, COMMAND)
        pids.append(engine.pid)
        return engine

    async def run() -> None:
        supervisor = await Supervisor.start(CONFIG, limits, launch)
        if moment != "served":
            os.kill(pids[0], signal.SIGKILL)
            await until(lambda: not supervisor.alive)
            await until(lambda: supervisor.pid is None)
            if moment == "pausing":
                await until(lambda: len(pids) == 2)
            else:
                await asyncio.sleep(0.05)
        await supervisor.close()
        await supervisor.close()
        with pytest.raises(EngineDeadError):
            _ = [token async for token in supervisor.open(Request([1], None, SamplingParams(max_tokens=1)))]

    asyncio.run(run())
    assert all(gone_within(pid, 2) for pid in pids if pid)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text("ascii").split()
    assert not any(alive(int(child)) for child in children if int(child) in pids)
    assert not list(tmp_path.glob("panacea-*"))


@pytest.mark.slow
@pytest.mark.parametrize("model", [BASE, Path("gone")])
def test_closing_at_any_moment_of_a_restart_leaves_nothing(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The engine that is to take the failed one's place loads, or fails to."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    begun: list[EngineConfig] = []

    async def launch() -> EngineClient:
        begun.append(CONFIG if not begun else replace(CONFIG, model=model))
        return await EngineClient.start(begun[-1], SUPERVISION, COMMAND)

    async def run(moment_s: float) -> None:
        begun.clear()
        supervisor = await Supervisor.start(CONFIG, SUPERVISION, launch)
        assert supervisor.pid is not None
        os.kill(supervisor.pid, signal.SIGKILL)
        await until(lambda: len(begun) > 1 or not supervisor.alive)
        await asyncio.sleep(moment_s)
        await supervisor.close()

    asyncio.run(run(0))
    before = Holdings.settled()
    for moment in range(5):
        asyncio.run(run(moment * 0.06))
        assert Holdings.settled() == before, f"closed {moment * 0.06:.2f} s after the restart had begun"


@pytest.mark.slow
@pytest.mark.parametrize("command", [["/no/such/program"], ["true"]])
def test_a_process_that_cannot_be_started_or_ends_at_once_is_tried_again_and_leaves_nothing(
    command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    limits = replace(SUPERVISION, backoff_s=0.01, backoff_limit_s=0.01)
    starts = itertools.count()

    async def launch() -> EngineClient:
        return await EngineClient.start(CONFIG, limits, COMMAND if next(starts) in (0, 4) else command)

    async def run() -> None:
        supervisor = await Supervisor.start(CONFIG, limits, launch)
        try:
            before = Holdings.settled()
            await kill(supervisor)
            after = Holdings.settled()
            assert replace(after, threads=before.threads) == before
            assert after.threads <= before.threads + 1, "the thread in which the dead are waited for"
            assert [token async for token in supervisor.open(Request([40], None, SamplingParams(max_tokens=1)))]
        finally:
            await supervisor.close()

    asyncio.run(run())


@pytest.mark.slow
def test_a_server_that_stood_still_does_not_take_its_engine_for_stuck() -> None:
    limits = replace(SUPERVISION, watchdog_s=1.0)

    async def run() -> None:
        engine = await EngineClient.start(CONFIG, limits, COMMAND)
        try:
            time.sleep(2.0)
            await asyncio.sleep(0.6)
            assert engine.alive
        finally:
            await engine.close()

    asyncio.run(run())


def test_limits_below_what_a_process_can_keep_are_refused() -> None:
    for limits in ({"watchdog_s": 0.2}, {"step_limit_s": 0.0}, {"step_limit_s": float("nan")}):
        with pytest.raises(ConfigError, match="at least 1"):
            Supervision(**limits)
