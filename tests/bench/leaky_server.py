"""A server with faults planted in it: `python -m tests.bench.leaky_server memory fds ...`.

The HTTP half is the real one; behind it a made-up engine keeps what it should give back.
"""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import uvicorn

from panacea.api import create_app
from panacea.config import ServerConfig
from panacea.engine.outputs import EngineStats
from panacea.engine.request import Request
from panacea.errors import EngineError
from tests.api.fake_engine import FakeEngine, FakeStream
from tests.api.serving import NAME, SPACE
from tests.api.text_workers import text_workers

CANARY_TOKENS = 32
"""Of a canary's answer; the load's are shorter."""
MANY = 1_000_000


@dataclass
class LeakyEngine(FakeEngine):
    """Requests that leave something behind."""

    faults: Sequence[str] = ()
    asked: int = 0
    canaries: int = 0
    """Of the asked ones; the first dozen come before the load."""
    files: int = 0
    """Left open: fewer than a process may have."""
    left: list[Any] = field(default_factory=list[Any])

    def __post_init__(self) -> None:
        self.info = replace(self.info, max_batch=MANY, num_blocks=MANY)
        self._update()

    def open(self, request: Request) -> FakeStream:
        self.asked += 1
        self.canaries += request.params.max_tokens == CANARY_TOKENS
        late = self.canaries > 12  # from here on the soak has seen what it compares with
        for fault in self.faults:
            if hasattr(self, f"_leak_{fault}"):
                getattr(self, f"_leak_{fault}")()
        fails = "failures" in self.faults and late and self.asked % 10 == 0
        self.failure = EngineError("made up") if fails else None
        if "death" in self.faults and late:
            os._exit(9)
        if "words" in self.faults and late:
            request = replace(request, prompt_ids=[*request.prompt_ids, self.asked])  # the tokens are a hash of it
        stream = super().open(request)
        self._update()
        return stream

    def release(self) -> None:
        super().release()
        self.submitted.clear()
        self._update()

    def _update(self) -> None:
        lost_slots = self.asked if "slots" in self.faults else 0
        lost_blocks = self.asked if "blocks" in self.faults else 0
        self.stats = EngineStats(
            steps=self.asked,
            running=self.live,
            waiting=0,
            free_blocks=self.info.num_blocks - lost_blocks - self.live,
            free_slots=self.info.max_batch - lost_slots - self.live,
            preemptions=0,
            max_step_requests=1,
            max_step_preferences=1,
        )

    def _leak_memory(self) -> None:
        self.left.append(b"\1" * 200_000)

    def _leak_fds(self) -> None:
        if self.canaries > 12 and self.files < 500:
            self.files += 1
            self.left.append(os.open(os.devnull, os.O_RDONLY))

    def _leak_tasks(self) -> None:
        self.left.append(asyncio.create_task(asyncio.Event().wait()))

    def _leak_threads(self) -> None:
        if self.asked % 4 == 0:
            threading.Thread(target=threading.Event().wait, daemon=True).start()

    def _leak_processes(self) -> None:
        if self.canaries == 13 and not any(isinstance(each, subprocess.Popen) for each in self.left):
            self.left.append(subprocess.Popen(["sleep", "30"]))

    def _leak_slow(self) -> None:
        self.prefill_s = self.canaries * 0.015


async def serve(faults: Sequence[str]) -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    app = create_app(ServerConfig(model_name=NAME), LeakyEngine(faults=faults), text_workers(), SPACE, None)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    print(f"Panacea serves {NAME} on http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)  # noqa: T201
    await server.serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1:]))
