"""The engine in its own process: the same answers, and no way to leave anything behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from panacea.config import EngineConfig
from panacea.engine.client import EngineClient
from panacea.engine.outputs import EngineStats
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.engine.socket_folder import socket_folder
from panacea.errors import ConfigError, EngineDeadError, EngineError, RequestError
from tests.golden_files import ADAPTER, BASE, Golden, golden

CONFIG = EngineConfig(model=BASE, adapter=ADAPTER, dtype="float32")
GREEDY = SamplingParams(max_tokens=24, temperature=0)
ENDLESS = replace(GREEDY, max_tokens=480, ignore_eos=True)
EVERYTHING = [*golden("panacea"), *golden("base")]


@asynccontextmanager
async def running_engine() -> AsyncGenerator[EngineClient]:
    engine = await EngineClient.start(CONFIG)
    try:
        yield engine
    finally:
        await engine.close()


async def answer(engine: EngineClient, entry: Golden, params: SamplingParams = GREEDY) -> list[int]:
    with closing(engine.open(Request(entry.prompt_ids, entry.preference, params))) as stream:
        return [token.token_id async for token in stream]


async def stats_when(engine: EngineClient, condition: Callable[[EngineStats], bool]) -> EngineStats:
    """The first heartbeat's stats that meet the condition; fails after five seconds."""
    async with asyncio.timeout(5):
        while engine.stats is None or not condition(engine.stats):
            await asyncio.sleep(0.02)
    return engine.stats


def alive(pid: int) -> bool:
    """Whether the process runs; one that waits for its parent to collect it does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone_within(pid: int, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


@pytest.mark.slow
def test_all_golden_answers_at_once_and_they_shared_steps() -> None:
    async def run() -> None:
        async with running_engine() as engine:
            answers = await asyncio.gather(*(answer(engine, entry) for entry in EVERYTHING))
            assert answers == [entry.greedy_ids for entry in EVERYTHING]
            stats = await stats_when(engine, lambda stats: stats.running == 0 and stats.steps > 0)
            assert stats.max_step_requests > 10
            assert stats.max_step_preferences == 7
            assert (stats.free_blocks, stats.free_slots) == (engine.info.num_blocks, engine.info.max_batch)

    asyncio.run(run())


@pytest.mark.slow
def test_a_closed_or_cancelled_stream_frees_its_request_and_disturbs_nobody() -> None:
    async def run() -> None:
        async with running_engine() as engine:
            stream = engine.open(Request(EVERYTHING[0].prompt_ids, EVERYTHING[0].preference, ENDLESS))
            await anext(stream)
            task = asyncio.create_task(answer(engine, EVERYTHING[3], ENDLESS))
            neighbour = asyncio.create_task(answer(engine, EVERYTHING[6]))
            await asyncio.sleep(0.1)
            stream.close()
            task.cancel()
            assert await neighbour == EVERYTHING[6].greedy_ids
            with pytest.raises(asyncio.CancelledError):
                await task
            stats = await stats_when(engine, lambda stats: stats.running == 0 and stats.steps > 3)
            assert (stats.free_blocks, stats.free_slots) == (engine.info.num_blocks, engine.info.max_batch)
            assert stats.steps < 400, "the cancelled requests ran on to their ends"

    asyncio.run(run())


@pytest.mark.slow
def test_a_request_that_never_fits_is_refused_and_the_next_one_served() -> None:
    async def run() -> None:
        async with running_engine() as engine:
            for bad, param in (([1] * 600, "prompt"), ([10**6], "prompt"), ([], "prompt")):
                with pytest.raises(RequestError) as caught:
                    _ = [token async for token in engine.open(Request(bad, None, GREEDY))]
                assert caught.value.param == param
            assert await answer(engine, EVERYTHING[0]) == EVERYTHING[0].greedy_ids

    asyncio.run(run())


@pytest.mark.slow
def test_heartbeats_keep_coming_when_idle() -> None:
    async def run() -> None:
        async with running_engine() as engine:
            for _ in range(15):
                await asyncio.sleep(0.1)
                assert engine.heartbeat_age_s < 1.2

    asyncio.run(run())


@pytest.mark.slow
def test_when_the_engine_is_killed_every_client_hears_of_it_within_two_seconds() -> None:
    async def run() -> None:
        async with running_engine() as engine:
            tasks = [asyncio.create_task(answer(engine, entry, ENDLESS)) for entry in EVERYTHING[:3]]
            await asyncio.sleep(0.2)
            os.kill(engine.pid, signal.SIGKILL)
            start = time.monotonic()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert time.monotonic() - start < 2
            assert all(isinstance(result, EngineDeadError) for result in results)
            assert not engine.alive
            with pytest.raises(EngineDeadError):
                await answer(engine, EVERYTHING[0])

    asyncio.run(run())


@pytest.mark.slow
def test_an_engine_that_cannot_load_says_why(tmp_path: Path) -> None:
    async def run() -> None:
        await EngineClient.start(EngineConfig(model=tmp_path))

    with pytest.raises(EngineError, match=r"is not a model folder: config\.json is missing"):
        asyncio.run(run())


SERVER = """
import asyncio, sys
from pathlib import Path
from panacea.config import EngineConfig
from panacea.engine.client import EngineClient
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams

async def main():
    engine = await EngineClient.start(EngineConfig(model=Path(sys.argv[1])))
    async for _ in engine.open(Request([3, 4, 5], None, SamplingParams(max_tokens=400, ignore_eos=True))):
        print(engine.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_server_dies_the_engine_is_gone_within_two_seconds(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER, str(BASE)], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        engine_pid = int(server.stdout.readline())
        assert alive(engine_pid)
        server.send_signal(number)
        server.wait()
        assert gone_within(engine_pid, 2)


STARTING = """
import sys, time
from pathlib import Path
from panacea.config import EngineConfig
from panacea.engine.client import EngineClient

engine = EngineClient(EngineConfig(model=Path(sys.argv[1])))
print(engine.pid, flush=True)
time.sleep(60)
"""


def test_an_engine_that_still_starts_is_gone_too_and_its_sockets_folder_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", STARTING, str(BASE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as server:
        assert server.stdout is not None
        engine_pid = int(server.stdout.readline())
        time.sleep(0.8)  # in the midst of its imports
        assert list(tmp_path.glob("panacea-*"))
        server.kill()
        server.wait()
        assert gone_within(engine_pid, 2)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with socket_folder() as folder:
        assert list(tmp_path.glob("panacea-*")) == [folder]


def test_a_folder_too_deep_for_a_socket_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("x" * 100)))
    with pytest.raises(ConfigError, match="TMPDIR"):
        EngineClient(CONFIG)


def test_the_http_half_runs_without_torch() -> None:
    code = "import panacea.api, panacea.text, panacea.engine.client, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
