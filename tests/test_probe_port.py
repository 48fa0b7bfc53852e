"""Probes on a port of their own: answered while the main event loop stands still, loads, drains, or is attacked."""

import asyncio
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import httpx2
import pytest

from panacea.api.access.admission import Admission
from panacea.api.app import create_app, new_admission
from panacea.api.probe_port import ProbedServer, ProbePort, probe_port
from panacea.api_key import ApiKey
from panacea.config import ServerConfig
from panacea.serving import bind
from tests.api.fake_engine import FakeEngine
from tests.api.serving import NAME, SPACE, wait_until
from tests.api.text_workers import text_workers
from tests.command import run_panacea
from tests.golden_files import BASE
from tests.test_drain import SLOW_ENGINE

KEY = "a-key-of-some-length"


@dataclass
class Probed:
    """A probe port whose main event loop does what the test wants."""

    port: ProbePort
    address: int
    engine: FakeEngine
    admission: Admission
    loop: asyncio.AbstractEventLoop
    config: ServerConfig

    def load(self) -> None:
        app = create_app(self.config, self.engine, text_workers(), SPACE, None, self.admission)
        self.port.probed = ProbedServer(app, self.engine, self.admission, heartbeat_limit_s=10)

    @contextmanager
    def blocked_loop(self) -> Generator[None]:
        """Within the block, the main event loop stands still."""
        begun, ended = threading.Event(), threading.Event()

        def block() -> None:
            begun.set()
            ended.wait(60)

        self.loop.call_soon_threadsafe(block)
        begun.wait(60)
        try:
            yield
        finally:
            ended.set()


@contextmanager
def probing(api_keys: tuple[str, ...] = (), *, loaded: bool = True) -> Generator[tuple[Probed, httpx2.Client]]:
    started: list[Probed] = []
    ended = threading.Event()

    async def main() -> None:
        config = ServerConfig(NAME, api_keys=tuple(map(ApiKey.of, api_keys)))
        engine = FakeEngine()
        with bind("127.0.0.1", 0) as listener:
            async with probe_port(listener, loop_limit_s=0.5) as port:
                assert port is not None
                admission = new_admission(config, engine)
                probed = Probed(port, listener.getsockname()[1], engine, admission, asyncio.get_running_loop(), config)
                if loaded:
                    probed.load()
                started.append(probed)
                while not ended.is_set():
                    await asyncio.sleep(0.02)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        wait_until(lambda: bool(started), 30)
        with httpx2.Client(base_url=f"http://127.0.0.1:{started[0].address}", timeout=10) as client:
            yield started[0], client
    finally:
        ended.set()
        thread.join()


def code(response: httpx2.Response) -> tuple[int, str | None]:
    return response.status_code, response.json()["error"]["code"]


def test_health_says_that_the_event_loop_is_blocked_and_answers_all_the_while() -> None:
    with probing() as (probed, client):
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/ready").json() == {"status": "ready"}
        with probed.blocked_loop():
            assert client.get("/health").status_code == 200, "a short pause is no reason to restart"
            wait_until(lambda: client.get("/health").status_code == 503)
            assert code(client.get("/health")) == code(client.get("/ready")) == (503, "event_loop_blocked")
            assert "panacea:event_loop_tasks" in client.get("/metrics").text
        wait_until(lambda: client.get("/health").status_code == 200)
        assert client.get("/ready").status_code == 200


def test_while_the_model_loads_health_is_ok_and_ready_is_not() -> None:
    with probing(loaded=False) as (probed, client):
        with probed.blocked_loop():
            time.sleep(0.7)
            assert client.get("/health").status_code == 200
            for path in ("/ready", "/metrics"):
                assert code(client.get(path)) == (503, "loading")
        probed.load()
        assert client.get("/ready").status_code == 200


def test_ready_follows_the_engine_and_the_drain() -> None:
    with probing() as (probed, client):
        probed.engine.alive = False
        assert code(client.get("/ready")) == (503, "engine_unavailable")
        probed.engine.alive = True
        probed.admission.drain()
        assert code(client.get("/ready")) == (503, "shutting_down")
        assert client.get("/health").status_code == 200
        assert client.get("/metrics").status_code == 200


def test_metrics_need_the_key_and_probes_do_not() -> None:
    with probing((KEY,)) as (_, client):
        assert client.get("/health").status_code == client.get("/ready").status_code == 200
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers={"authorization": f"Bearer {KEY}"}).status_code == 200


def test_event_loop_tasks_are_those_of_the_main_loop() -> None:
    with probing() as (probed, client):

        async def begin_tasks() -> None:
            tasks.extend(asyncio.create_task(asyncio.sleep(60)) for _ in range(40))

        async def end_tasks() -> None:
            for task in tasks:
                task.cancel()

        tasks: list[asyncio.Task[None]] = []
        asyncio.run_coroutine_threadsafe(begin_tasks(), probed.loop).result(10)
        (line,) = [
            line for line in client.get("/metrics").text.splitlines() if line.startswith("panacea:event_loop_tasks{")
        ]
        assert float(line.split()[-1]) >= 40
        asyncio.run_coroutine_threadsafe(end_tasks(), probed.loop).result(10)


def test_nothing_else_is_served() -> None:
    with probing() as (_, client):
        for path in ("/", "/v1/models", "/docs", "/healthy"):
            assert client.get(path).status_code == 404
        refused = client.post("/health", content=b"x" * 10_000)
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        for path in ("/health", "/ready", "/metrics"):
            head = client.head(path)
            assert (head.status_code, head.content) == (200, b"")


def test_connections_stay_open_and_garbage_is_refused() -> None:
    with probing() as (probed, client):
        with socket.create_connection(("127.0.0.1", probed.address), 10) as kept:
            for _ in range(3):
                kept.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
                answer = b""
                while b'{"status":"ok"}' not in answer:
                    answer += kept.recv(1000)
        for garbage in (
            b"\x16\x03\x01 \r\n\r\n",
            b"GET /health HTTP/3.7\r\n\r\n",
            b"GET " + b"x" * 20_000,
            b"\r\n" * 999,
        ):
            with socket.create_connection(("127.0.0.1", probed.address), 10) as bad, suppress(OSError):
                bad.sendall(garbage)
                bad.shutdown(socket.SHUT_WR)
                while bad.recv(1000):
                    pass
        assert client.get("/health").status_code == 200


def test_silent_connections_do_not_lock_the_probes_out() -> None:
    with probing() as (probed, _), ExitStack() as held:
        for _ in range(200):
            held.enter_context(socket.create_connection(("127.0.0.1", probed.address), 10))
        begin = time.monotonic()
        assert httpx2.get(f"http://127.0.0.1:{probed.address}/health", timeout=10).status_code == 200
        assert time.monotonic() - begin < 2


def test_a_probe_port_in_use_is_one_line_before_the_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_panacea("serve", "--model", str(BASE), "--port", "0", "--probe-port", str(port))
    assert done.code == 2
    assert done.err.splitlines() == [f"panacea: error: cannot listen on 127.0.0.1:{port}: address already in use"]


@pytest.mark.slow
def test_a_real_server_prints_the_address_answers_while_it_is_busy_and_ends() -> None:
    command = [*SLOW_ENGINE, "serve", "--model", str(BASE), "--port", "0", "--probe-port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        url = next(line.split()[1] for line in process.stderr if line.startswith("Probes: ")).removesuffix("/health")
        with httpx2.Client(base_url=url, timeout=10) as client:
            assert [client.get(path).status_code for path in ("/health", "/ready", "/metrics")] == [200] * 3
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()
