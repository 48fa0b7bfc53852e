"""The server's half of the engine: starts its process, sends requests and receives tokens. asyncio, no torch."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Self

import msgspec
import zmq
import zmq.asyncio

from panacea.config import EngineConfig, Supervision
from panacea.engine.messages import (
    Abort,
    EngineLaunch,
    Failed,
    FromEngine,
    Heartbeat,
    Open,
    Pulse,
    QueueTimeout,
    Ready,
    Refused,
    RequestFailed,
    Shutdown,
    StepOutput,
    ToEngine,
)
from panacea.engine.outputs import EngineInfo, EngineStats, TokenOutput
from panacea.engine.request import Request
from panacea.engine.socket_folder import COMMANDS, EVENTS, LONGEST_NAME, socket_folder
from panacea.errors import (
    ConfigError,
    EngineDeadError,
    EngineError,
    PanaceaError,
    QueueTimeoutError,
    RequestError,
    RequestFailedError,
    first_line,
)

EXIT_LIMIT_S = 2.0
"""How long the engine may take to shut down before it is killed."""
WATCH_INTERVAL_S = 0.25
"""How often the engine's process is checked. Its death is noticed within this time."""
LOAD_SILENCE_LIMIT_S = 300.0
"""How long a loading process may be silent. Imports from a slow disk hold the interpreter's lock for long."""
COMMAND = (sys.executable, "-m", "panacea.engine.process")


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"was ended by {name}" + (": check whether memory ran out" if name == "SIGKILL" else "")


class ProcessStream:
    """The `TokenStream` of a request in another process. Made by `EngineClient.open`."""

    def __init__(self, abort: Callable[[], None]) -> None:
        """`abort` ends the request in the engine."""
        self._abort = abort
        self._arrived: asyncio.Queue[TokenOutput | PanaceaError | None] = asyncio.Queue()
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenOutput:
        if self._ended and self._arrived.empty():
            raise StopAsyncIteration
        item = await self._arrived.get()
        if item is None:
            raise StopAsyncIteration
        if isinstance(item, PanaceaError):
            raise item
        return item

    def deliver(self, item: TokenOutput | PanaceaError) -> None:
        """The engine has sent a token, or an error that ends the stream."""
        self._ended = isinstance(item, PanaceaError) or item.finish_reason is not None
        self._arrived.put_nowait(item)

    @property
    def ended(self) -> bool:
        """Whether the last token or an error has arrived, or the stream was closed."""
        return self._ended

    def close(self) -> None:
        while not self._arrived.empty():
            self._arrived.get_nowait()
        self._arrived.put_nowait(None)  # wakes a task that waits for a token
        if not self._ended:
            self._ended = True
            self._abort()


class EngineClient:
    """An engine in a process of its own. Made by `start`; all calls from one event loop."""

    info: EngineInfo
    restarts = 0
    """Always 0, because one client has one process. `Supervisor` starts others."""

    def __init__(
        self, config: EngineConfig, supervision: Supervision | None = None, command: Sequence[str] = COMMAND
    ) -> None:
        self.config = config
        self._supervision = supervision or Supervision()
        if len(tempfile.gettempdir()) > zmq.IPC_PATH_MAX_LEN - len(LONGEST_NAME):
            raise ConfigError(f"{tempfile.gettempdir()} is too long for a local socket; set TMPDIR to a shorter path")
        with ExitStack() as held:
            folder = held.enter_context(socket_folder())
            launch = EngineLaunch(config, f"ipc://{folder}/{COMMANDS}", f"ipc://{folder}/{EVENTS}", os.getpid())
            context = zmq.Context()
            held.callback(context.destroy, linger=0)
            self._commands = context.socket(zmq.PUSH)
            self._commands.set_hwm(0)
            self._commands.bind(launch.commands)
            self._events = zmq.asyncio.Context(context).socket(zmq.PULL)
            held.callback(self._events.close, linger=0)
            self._events.set_hwm(0)
            self._events.bind(launch.events)
            # The event loop's thread starts it, because the engine dies with this thread. In its own session, so that
            # Ctrl-C reaches only the server. The server then shuts the engine down.
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0, start_new_session=True)
            self._held = held.pop_all()
        assert self._process.stdin is not None
        self._lifeline = self._process.stdin  # stays open: an orphaned engine exits when it closes
        with suppress(BrokenPipeError):  # the process has ended already: `_watch` reports it
            self._lifeline.write(launch.to_line())
        self._decoder = msgspec.msgpack.Decoder(FromEngine)
        self._ids = itertools.count()
        self._streams: dict[str, ProcessStream] = {}
        """Streams that have not ended."""
        self._failure: EngineError | None = None
        self._stats: EngineStats | None = None
        self._last_heard = time.monotonic()
        self._silent_looks = 0
        self._step_s = 0.0
        self._ended = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def start(
        cls, config: EngineConfig, supervision: Supervision | None = None, command: Sequence[str] = COMMAND
    ) -> "EngineClient":
        """Starts the process and waits until the model is loaded. Raises `EngineError` with the engine's reason.

        `command` starts a process that behaves like `panacea.engine.process`.
        """
        client = cls(config, supervision, command)
        loaded: asyncio.Future[EngineInfo] = asyncio.get_running_loop().create_future()
        client._tasks = [asyncio.create_task(client._listen(loaded)), asyncio.create_task(client._watch(loaded))]
        try:
            client.info = await loaded
        except BaseException:
            if client.alive:  # it is still loading, and would not read a `Shutdown` before the model is loaded
                client._process.kill()
            await client.close()
            raise
        return client

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stats(self) -> EngineStats | None:
        """The engine's state at its last heartbeat; None before the first."""
        return self._stats

    @property
    def heartbeat_age_s(self) -> float:
        """Seconds since the engine's last message."""
        return time.monotonic() - self._last_heard

    @property
    def alive(self) -> bool:
        return self._failure is None

    async def failed(self) -> EngineError:
        """Waits until the engine has failed, and returns the reason."""
        await self._ended.wait()
        assert self._failure is not None
        return self._failure

    def open(self, request: Request) -> "ProcessStream":
        """Sends a request to the engine and returns the handle of its answer; see `TokenStream` for what it raises.

        Raises `EngineError` if the engine has failed. Cancelling a task does not end the request; closing the stream
        does.
        """
        request_id = str(next(self._ids))
        stream = ProcessStream(lambda: self._forget(request_id))
        self._send(Open(request_id, request))
        self._streams[request_id] = stream
        return stream

    async def close(self) -> None:
        """Ends the engine and all its requests. Calling it again changes nothing."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.alive:
            self._send_if_possible(Shutdown())
        self._fail(EngineDeadError("the engine was shut down"))
        try:
            await asyncio.to_thread(self._end_process)
        finally:  # also if this task is cancelled: the thread still ends the process
            self._held.close()

    def _end_process(self) -> None:
        try:
            self._process.wait(EXIT_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._lifeline.close()

    def _send(self, message: ToEngine) -> None:
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))
        if not self._send_if_possible(message):
            raise EngineDeadError("the engine's process has ended")

    def _send_if_possible(self, message: ToEngine) -> bool:
        """Never blocks. The socket's queue has no limit, so sending fails only if no process is connected."""
        try:
            self._commands.send(msgspec.msgpack.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    async def _listen(self, loaded: "asyncio.Future[EngineInfo]") -> None:
        try:
            await self._receive(loaded)
        except Exception as error:
            self._fail(EngineError(f"the engine sent a message that cannot be read: {first_line(error)}"), loaded)

    async def _receive(self, loaded: "asyncio.Future[EngineInfo]") -> None:
        while True:
            message: FromEngine = self._decoder.decode(await self._events.recv())
            self._last_heard = time.monotonic()
            self._silent_looks = 0
            match message:
                case StepOutput(tokens):
                    for token in tokens:
                        self._deliver(token.request_id, token)
                case Refused(request_id, text, param):
                    self._deliver(request_id, RequestError(text, param))
                case QueueTimeout(request_id, waited_s):
                    late = QueueTimeoutError(f"the request waited {waited_s:.0f} s for its first step; try again later")
                    self._deliver(request_id, late)
                case RequestFailed(request_id, text):
                    self._deliver(request_id, RequestFailedError(f"this request could not be computed: {text}"))
                case Pulse(step_s):
                    self._step_s = step_s
                case Heartbeat(stats):
                    self._stats = stats
                case Ready(info):
                    if not loaded.done():
                        loaded.set_result(info)
                case Failed(text):
                    self._fail(EngineError(text), loaded)

    async def _watch(self, loaded: "asyncio.Future[EngineInfo]") -> None:
        while self._process.poll() is None:
            await asyncio.sleep(WATCH_INTERVAL_S)
            # Counts checks and not seconds: while the server itself was stopped, it did not wait for the engine.
            self._silent_looks += 1
            self._end_if_stuck(loaded)
        await asyncio.sleep(WATCH_INTERVAL_S)  # a last message with the reason may still arrive
        self._fail(EngineDeadError(f"the engine's process {_how_it_ended(self._process.returncode)}"), loaded)

    def _end_if_stuck(self, loaded: "asyncio.Future[EngineInfo]") -> None:
        limits = self._supervision
        silence_limit_s = limits.watchdog_s if loaded.done() else max(limits.watchdog_s, LOAD_SILENCE_LIMIT_S)
        if self._silent_looks * WATCH_INTERVAL_S > silence_limit_s:
            error = EngineDeadError(f"the engine's process was silent for more than {silence_limit_s:g} s")
        elif self._step_s > limits.step_limit_s:
            error = EngineDeadError(f"a step of the engine took more than {limits.step_limit_s:g} s")
        else:
            return
        self._process.kill()
        self._fail(error, loaded)

    def _deliver(self, request_id: str, item: TokenOutput | PanaceaError) -> None:
        stream = self._streams.get(request_id)
        if stream is None:  # the token was sent before the engine read the abort of its request
            return
        stream.deliver(item)
        if stream.ended:
            del self._streams[request_id]

    def _forget(self, request_id: str) -> None:
        if self._streams.pop(request_id, None) is not None and self.alive:
            self._send_if_possible(Abort(request_id))

    def _fail(self, error: EngineError, loaded: "asyncio.Future[EngineInfo] | None" = None) -> None:
        """Ends every running and future request with `error`. Only the first error counts."""
        if self._failure is not None:
            return
        self._failure = error
        self._ended.set()
        if loaded is not None and not loaded.done():
            loaded.set_exception(error)
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.deliver(type(error)(str(error)))
