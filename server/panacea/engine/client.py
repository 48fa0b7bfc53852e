"""The server's half of the engine: starts its process, hands it requests and gives out tokens. asyncio, no torch."""

import asyncio
import itertools
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, suppress

import msgspec
import zmq
import zmq.asyncio

from panacea.config import EngineConfig, Supervision
from panacea.engine.messages import (
    Abort,
    Failed,
    FromEngine,
    Heartbeat,
    Launch,
    Pulse,
    QueueTimeout,
    Ready,
    Refused,
    RequestFailed,
    Shutdown,
    StepOutput,
    Submit,
    ToEngine,
)
from panacea.engine.outputs import EngineInfo, EngineStats, TokenOutput
from panacea.engine.sampling_params import SamplingParams
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
from panacea.preference import Preference

EXIT_LIMIT_S = 2.0
"""How long an engine that was told to shut down may take before it is killed."""
WATCH_INTERVAL_S = 0.25
"""How often the engine's process is looked at: the longest time its death goes unnoticed."""
LOAD_SILENCE_LIMIT_S = 300.0
"""How long a process that loads may be silent: importing libraries from a slow disk holds the interpreter."""
COMMAND = (sys.executable, "-m", "panacea.engine.process")


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"was ended by {name}" + (", as happens when memory runs out" if name == "SIGKILL" else "")


class EngineClient:
    """An engine in a process of its own. Made by `start`; all calls from one event loop."""

    info: EngineInfo
    restarts = 0
    """One process is one engine; `Supervisor` is who starts another."""

    def __init__(
        self, config: EngineConfig, supervision: Supervision | None = None, command: Sequence[str] = COMMAND
    ) -> None:
        self.config = config
        self._supervision = supervision or Supervision()
        if len(tempfile.gettempdir()) > zmq.IPC_PATH_MAX_LEN - len("/panacea-12345678/commands"):
            raise ConfigError(f"{tempfile.gettempdir()} is too long for a local socket; set TMPDIR to a shorter path")
        with ExitStack() as held:
            folder = held.enter_context(tempfile.TemporaryDirectory(prefix="panacea-"))  # for this user alone
            launch = Launch(config, f"ipc://{folder}/commands", f"ipc://{folder}/events")
            context = zmq.Context()
            held.callback(context.destroy, linger=0)
            self._commands = context.socket(zmq.PUSH)
            self._commands.set_hwm(0)
            self._commands.bind(launch.commands)
            self._events = zmq.asyncio.Context(context).socket(zmq.PULL)
            held.callback(self._events.close, linger=0)
            self._events.set_hwm(0)
            self._events.bind(launch.events)
            # A session of its own: Ctrl-C reaches the server alone, which then ends the engine in good order.
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0, start_new_session=True)
            self._held = held.pop_all()
        assert self._process.stdin is not None
        self._lifeline = self._process.stdin  # stays open: its closing is what ends an orphaned engine
        with suppress(BrokenPipeError):  # it is gone already, which is noticed where all deaths are
            self._lifeline.write(launch.to_line())
        self._decoder = msgspec.msgpack.Decoder(FromEngine)
        self._ids = itertools.count()
        self._queues: dict[str, asyncio.Queue[TokenOutput | PanaceaError]] = {}
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
        """Starts the process and waits until the model is loaded. Raises `EngineError` with the engine's own reason.

        `command` starts a process that does what `panacea.engine.process` does.
        """
        client = cls(config, supervision, command)
        loaded: asyncio.Future[EngineInfo] = asyncio.get_running_loop().create_future()
        client._tasks = [asyncio.create_task(client._listen(loaded)), asyncio.create_task(client._watch(loaded))]
        try:
            client.info = await loaded
        except BaseException:
            if client.alive:  # nobody waits for it any more, and it would take in no message before it has loaded
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
        """Seconds since the engine was last heard of."""
        return time.monotonic() - self._last_heard

    @property
    def alive(self) -> bool:
        return self._failure is None

    async def failed(self) -> EngineError:
        """Waits until the engine serves no more, and says why."""
        await self._ended.wait()
        assert self._failure is not None
        return self._failure

    async def generate(
        self,
        prompt_ids: Sequence[int],
        preference: Preference | None,
        params: SamplingParams,
        cache_salt: str = "",
        tenant: str = "",
    ) -> AsyncGenerator[TokenOutput]:
        """One request's tokens as they come; `preference` None is the bare base. Requests share cached prefixes with
        those of equal `cache_salt` alone, and tenants take turns.

        Raises `RequestError` before the first token if the request could never be served, `QueueTimeoutError` if its
        turn did not come in time, `RequestFailedError` if it alone cannot be computed, and `EngineError` if the engine
        fails. Closing the generator, or cancelling the task that waits for it, ends the request in the engine.
        """
        request_id = str(next(self._ids))
        queue: asyncio.Queue[TokenOutput | PanaceaError] = asyncio.Queue()
        self._queues[request_id] = queue
        ended = False
        try:
            self._send(Submit(request_id, list(prompt_ids), preference, params, cache_salt, tenant))
            while not ended:
                item = await queue.get()
                ended = isinstance(item, PanaceaError) or item.finish_reason is not None
                if isinstance(item, PanaceaError):
                    raise item
                yield item
        finally:
            del self._queues[request_id]
            if not ended and self.alive:
                self._send_if_possible(Abort(request_id))

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
        finally:  # the thread ends the process also where nobody waits for it any more
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
            raise EngineDeadError("the engine's process is gone")

    def _send_if_possible(self, message: ToEngine) -> bool:
        """Never waits: without a limit on its queue the socket refuses only when nobody is at the other end."""
        try:
            self._commands.send(msgspec.msgpack.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    async def _listen(self, loaded: "asyncio.Future[EngineInfo]") -> None:
        try:
            await self._take_in(loaded)
        except Exception as error:
            self._fail(EngineError(f"the engine cannot be understood: {first_line(error)}"), loaded)

    async def _take_in(self, loaded: "asyncio.Future[EngineInfo]") -> None:
        while True:
            message: FromEngine = self._decoder.decode(await self._events.recv())
            self._last_heard = time.monotonic()
            self._silent_looks = 0
            match message:
                case StepOutput(tokens):
                    for token in tokens:
                        self._give(token.request_id, token)
                case Refused(request_id, text, param):
                    self._give(request_id, RequestError(text, param))
                case QueueTimeout(request_id, waited_s):
                    self._give(request_id, QueueTimeoutError(f"no room for the request after {waited_s:.0f} s"))
                case RequestFailed(request_id, text):
                    self._give(request_id, RequestFailedError(f"this request could not be computed: {text}"))
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
            # Counted in looks, not by the clock: a server that stood still itself has not waited for its engine.
            self._silent_looks += 1
            self._end_if_stuck(loaded)
        await asyncio.sleep(WATCH_INTERVAL_S)  # its last words may still be under way, and say more than this
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

    def _give(self, request_id: str, item: TokenOutput | PanaceaError) -> None:
        queue = self._queues.get(request_id)
        if queue is not None:  # a token may cross with the abort of its request
            queue.put_nowait(item)

    def _fail(self, error: EngineError, loaded: "asyncio.Future[EngineInfo] | None" = None) -> None:
        """From now on every request, running or to come, gets `error`. The first error stands."""
        if self._failure is not None:
            return
        self._failure = error
        self._ended.set()
        if loaded is not None and not loaded.done():
            loaded.set_exception(error)
        for queue in self._queues.values():
            queue.put_nowait(type(error)(str(error)))
