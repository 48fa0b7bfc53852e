"""The engine's own process: `python -m panacea.engine.process`, started by `EngineClient`.

Its first line on standard input is an `EngineLaunch` as JSON. After that, standard input stays open and silent while
the server lives. When the server dies in any way, the pipe closes and the engine exits at once. On Linux the kernel
kills it too, because a stopped process does not see the pipe.
"""

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import zmq

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
from panacea.engine.outputs import TokenOutput
from panacea.engine.parent_death import die_with
from panacea.errors import EngineError, PanaceaError, RequestError, is_contained
from panacea.logs import configure_logs, log_lines_dropped

if TYPE_CHECKING:
    from panacea.engine.engine import Engine

logger = logging.getLogger("panacea.engine")  # this module is __main__ where it runs

HEARTBEAT_INTERVAL_S = 0.5


class Pulses:
    """Sends a `Pulse` twice a second from a thread of its own, with the running time of the current step.

    A process is therefore silent only if it is stopped or stuck, and not during a long step.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", address: str) -> None:
        self._context = context
        self._address = address
        self._step_began: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Pulses":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @contextmanager
    def step(self) -> Generator[None]:
        """The context of one step, whose running time the pulses report."""
        self._step_began = time.monotonic()
        yield
        self._step_began = None

    def _run(self) -> None:
        with self._context.socket(zmq.PUSH) as events:
            events.linger = 0
            events.connect(self._address)
            while not self._ended.wait(HEARTBEAT_INTERVAL_S):
                began = self._step_began
                step_s = 0.0 if began is None else time.monotonic() - began
                with suppress(zmq.Again):  # the queue is full: the server does not read, so this pulse is dropped
                    events.send(msgspec.msgpack.encode(Pulse(step_s)), zmq.NOBLOCK)


class EngineProcess:
    """The loop around an engine: messages in, steps, messages out."""

    def __init__(
        self, engine: "Engine", commands: "zmq.Socket[bytes]", events: "zmq.Socket[bytes]", pulses: Pulses
    ) -> None:
        self._engine = engine
        self._pulses = pulses
        self._commands = commands
        self._events = events
        self._decoder = msgspec.msgpack.Decoder(ToEngine)
        self._next_heartbeat = 0.0

    def run(self) -> None:
        """Serves until a `Shutdown`."""
        while self._receive():
            tokens = self._step()
            if tokens:
                self._send(StepOutput(tokens))
            for failure in self._engine.take_failures():
                if failure.param is None:
                    self._send(RequestFailed(failure.request_id, failure.message))
                else:
                    self._send(Refused(failure.request_id, failure.message, failure.param))
            for late in self._engine.drop_late():
                self._send(QueueTimeout(late.request_id, time.monotonic() - late.arrived_at))
            if time.monotonic() >= self._next_heartbeat:
                self._next_heartbeat = time.monotonic() + HEARTBEAT_INTERVAL_S
                self._send(Heartbeat(replace(self._engine.stats, log_lines_dropped=log_lines_dropped())))

    def _step(self) -> list[TokenOutput]:
        try:
            with self._pulses.step():
                return self._engine.step()
        except Exception as error:
            logger.exception("a step failed")
            # All clients get this message. The exception's own text could repeat what one of them sent.
            raise EngineError(f"a step raised {type(error).__name__}") from error

    def _receive(self) -> bool:
        """Handles all waiting messages. Without work, waits for one until the next heartbeat. False: shut down."""
        patience_ms = 0 if self._engine.has_work else round(HEARTBEAT_INTERVAL_S * 1000)
        while self._commands.poll(patience_ms):
            patience_ms = 0
            message = self._decoder.decode(self._commands.recv())
            if isinstance(message, Shutdown):
                return False
            self._handle(message)
        return True

    def _handle(self, message: Open | Abort) -> None:
        if isinstance(message, Abort):
            self._engine.abort(message.request_id)
            return
        try:
            self._engine.add(message.request_id, message.request)
        except RequestError as error:
            self._send(Refused(message.request_id, str(error), error.param))
        except BaseException as error:
            if not is_contained(error):
                raise
            self._engine.abort(message.request_id)
            logger.exception("a request could not be added")
            self._send(RequestFailed(message.request_id, f"it could not be added: {type(error).__name__}"))

    def _send(self, message: FromEngine) -> None:
        self._events.send(msgspec.msgpack.encode(message))


def leave_with_the_server(launch: EngineLaunch) -> None:
    """Ends this process as soon as the server's end of standard input closes."""
    while os.read(sys.stdin.fileno(), 1):  # not a buffered reader, because its lock would block a normal exit
        pass
    shutil.rmtree(Path(launch.commands.removeprefix("ipc://")).parent, ignore_errors=True)
    os._exit(1)


def main() -> None:
    launch = EngineLaunch.from_line(sys.stdin.buffer.readline())
    die_with(launch.server)
    configure_logs(launch.config.logs)
    threading.Thread(target=leave_with_the_server, args=[launch], daemon=True).start()
    from panacea.engine.engine import Engine  # noqa: PLC0415 (takes seconds; the server may die meanwhile)

    configure_logs(launch.config.logs)  # once more: transformers has installed its own handler
    context = zmq.Context()
    commands = context.socket(zmq.PULL)
    commands.connect(launch.commands)
    events = context.socket(zmq.PUSH)
    events.set_hwm(0)  # no limit, so that no message is dropped: the server limits its own backlog
    events.connect(launch.events)
    try:
        with Pulses(context, launch.events) as pulses:
            engine = Engine.load(launch.config)
            logger.info("the model is loaded", extra={"fields": asdict(engine.info)})
            events.send(msgspec.msgpack.encode(Ready(engine.info)))
            EngineProcess(engine, commands, events, pulses).run()
    except PanaceaError as error:
        events.send(msgspec.msgpack.encode(Failed(str(error))))
    except Exception as error:
        events.send(msgspec.msgpack.encode(Failed(f"{type(error).__name__}: {error}")))
        raise
    finally:
        events.close(linger=1000)
        commands.close(linger=0)
        context.term()


if __name__ == "__main__":
    main()
