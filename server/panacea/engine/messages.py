"""The messages between the server and the engine's process: msgpack over a local ZeroMQ socket. No pickle."""

from pathlib import Path

import msgspec

from panacea.config import EngineConfig
from panacea.engine.outputs import EngineInfo, EngineStats, TokenOutput
from panacea.engine.request import Request


class EngineMessage(msgspec.Struct, tag=True, frozen=True):
    """Base of all messages; the tag on the wire is the class name."""


class EngineLaunch(msgspec.Struct, frozen=True):
    """The first line on the standard input of the engine's process, as JSON."""

    config: EngineConfig
    commands: str
    """ZeroMQ address of the server's messages."""
    events: str
    """ZeroMQ address of the engine's messages."""
    server: int
    """Process id of the server."""

    def to_line(self) -> bytes:
        return msgspec.json.encode(self, enc_hook=str) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "EngineLaunch":
        return msgspec.json.decode(line, type=cls, dec_hook=_decode_path)


def _decode_path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"messages cannot contain {kind}")


# Server to engine.


class Open(EngineMessage, frozen=True):
    """Start to answer a request, as the route made it."""

    request_id: str
    request: Request


class Abort(EngineMessage, frozen=True):
    """End a request and free all it holds. The engine ignores unknown ids, because the request may have finished."""

    request_id: str


class Shutdown(EngineMessage, frozen=True):
    """Drop everything and exit."""


# Engine to server.


class Ready(EngineMessage, frozen=True):
    """The model is loaded, and the engine accepts requests."""

    info: EngineInfo


class StepOutput(EngineMessage, frozen=True):
    """All tokens of one step."""

    tokens: list[TokenOutput]


class Refused(EngineMessage, frozen=True):
    """A request that is itself at fault: the engine can never serve it, or cannot serve it to its end."""

    request_id: str
    message: str
    param: str | None


class RequestFailed(EngineMessage, frozen=True):
    """A valid request that could not be computed. Other requests are not affected."""

    request_id: str
    message: str


class QueueTimeout(EngineMessage, frozen=True):
    """A request waited too long for its first step, and was dropped."""

    request_id: str
    waited_s: float


class Heartbeat(EngineMessage, frozen=True):
    """The engine's state. Sent at least every half second unless a step takes longer."""

    stats: EngineStats


class Pulse(EngineMessage, frozen=True):
    """The process is alive. Sent twice a second, also while a model loads and during a step."""

    step_s: float
    """Running time of the current step; 0 between steps."""


class Failed(EngineMessage, frozen=True):
    """The engine cannot continue, or could not start. Its process exits after this."""

    message: str


ToEngine = Open | Abort | Shutdown
FromEngine = Ready | StepOutput | Refused | RequestFailed | QueueTimeout | Heartbeat | Pulse | Failed
