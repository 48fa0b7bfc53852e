"""The engine's own process: `python -m panacea.engine.process`, started by `EngineClient`.

Its first line on standard input is a `Launch` as JSON. Then standard input stays open and silent for as long as the
server lives: when the server dies, however it dies, the pipe closes and the engine leaves at once.
"""

import logging
import os
import shutil
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import zmq

from panacea.engine.messages import (
    Abort,
    Failed,
    FromEngine,
    Heartbeat,
    Launch,
    Ready,
    Refused,
    Shutdown,
    StepOutput,
    Submit,
    ToEngine,
)
from panacea.errors import PanaceaError, RequestError
from panacea.logs import configure_logs

if TYPE_CHECKING:
    from panacea.engine.engine import Engine

logger = logging.getLogger("panacea.engine")  # this module is __main__ where it runs

HEARTBEAT_INTERVAL_S = 0.5


class EngineProcess:
    """The loop around an engine: messages in, steps, messages out."""

    def __init__(self, engine: "Engine", commands: "zmq.Socket[bytes]", events: "zmq.Socket[bytes]") -> None:
        self._engine = engine
        self._commands = commands
        self._events = events
        self._decoder = msgspec.msgpack.Decoder(ToEngine)
        self._next_heartbeat = 0.0

    def run(self) -> None:
        """Serves until a `Shutdown`."""
        while self._receive():
            tokens = self._engine.step()
            if tokens:
                self._send(StepOutput(tokens))
            if time.monotonic() >= self._next_heartbeat:
                self._next_heartbeat = time.monotonic() + HEARTBEAT_INTERVAL_S
                self._send(Heartbeat(self._engine.stats))

    def _receive(self) -> bool:
        """Takes in all messages that wait; without work, waits for one until the next heartbeat. False: shut down."""
        patience_ms = 0 if self._engine.has_work else round(HEARTBEAT_INTERVAL_S * 1000)
        while self._commands.poll(patience_ms):
            patience_ms = 0
            message = self._decoder.decode(self._commands.recv())
            if isinstance(message, Shutdown):
                return False
            self._handle(message)
        return True

    def _handle(self, message: Submit | Abort) -> None:
        if isinstance(message, Abort):
            self._engine.abort(message.request_id)
            return
        try:
            self._engine.add(
                message.request_id, message.prompt_ids, message.preference, message.params, message.cache_salt
            )
        except RequestError as error:
            self._send(Refused(message.request_id, str(error), error.param))

    def _send(self, message: FromEngine) -> None:
        self._events.send(msgspec.msgpack.encode(message))


def leave_with_the_server(launch: Launch) -> None:
    """Ends this process as soon as the server's end of standard input closes."""
    while os.read(sys.stdin.fileno(), 1):  # no buffered reader: its lock would stand in the way of a normal exit
        pass
    shutil.rmtree(Path(launch.commands.removeprefix("ipc://")).parent, ignore_errors=True)
    os._exit(1)


def main() -> None:
    launch = Launch.from_line(sys.stdin.buffer.readline())
    threading.Thread(target=leave_with_the_server, args=[launch], daemon=True).start()
    from panacea.engine.engine import Engine  # noqa: PLC0415 (seconds of imports, during which the server may die)

    configure_logs(launch.config.logs)
    context = zmq.Context()
    commands = context.socket(zmq.PULL)
    commands.connect(launch.commands)
    events = context.socket(zmq.PUSH)
    events.set_hwm(0)  # nothing is dropped: a slow server is the server's to bound
    events.connect(launch.events)
    try:
        engine = Engine.load(launch.config)
        logger.info("the model is loaded", extra={"fields": asdict(engine.info)})
        events.send(msgspec.msgpack.encode(Ready(engine.info)))
        EngineProcess(engine, commands, events).run()
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
