"""What the server and the engine's process say to each other: msgpack over a local ZeroMQ socket. No pickle."""

from pathlib import Path

import msgspec

from panacea.config import EngineConfig
from panacea.engine.outputs import EngineInfo, EngineStats, TokenOutput
from panacea.engine.sampling_params import SamplingParams


class Message(msgspec.Struct, tag=True, frozen=True):
    """Base of all messages; the tag on the wire is the class name."""


class Launch(msgspec.Struct, frozen=True):
    """What the engine's process is told at its start: one line of JSON on its standard input."""

    config: EngineConfig
    commands: str
    """ZeroMQ address that the server's messages come from."""
    events: str
    """ZeroMQ address that the engine's messages go to."""

    def to_line(self) -> bytes:
        return msgspec.json.encode(self, enc_hook=str) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Launch":
        return msgspec.json.decode(line, type=cls, dec_hook=_decode_path)


def _decode_path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"no message carries {kind}")


# Server to engine.


class Submit(Message, frozen=True):
    """Generate from `prompt_ids`. `preference` None means the bare base model."""

    request_id: str
    prompt_ids: list[int]
    preference: tuple[float, ...] | None
    params: SamplingParams
    cache_salt: str = ""
    tenant: str = ""


class Abort(Message, frozen=True):
    """End a request and free all it holds. Unknown ids are fine: it may just have finished."""

    request_id: str


class Shutdown(Message, frozen=True):
    """Drop everything and exit."""


# Engine to server.


class Ready(Message, frozen=True):
    """The model is loaded; requests may come."""

    info: EngineInfo


class StepOutput(Message, frozen=True):
    """All tokens of one step."""

    tokens: list[TokenOutput]


class Refused(Message, frozen=True):
    """A request that can never be served, or not to its end. A good request never gets this."""

    request_id: str
    message: str
    param: str | None


class RequestFailed(Message, frozen=True):
    """A request that was accepted and could not be computed. Nobody else is affected."""

    request_id: str
    message: str


class QueueTimeout(Message, frozen=True):
    """A request that waited for its first step for too long, and was dropped."""

    request_id: str
    waited_s: float


class Heartbeat(Message, frozen=True):
    """How the engine is doing. Sent at least every half second unless a step takes longer."""

    stats: EngineStats


class Pulse(Message, frozen=True):
    """The process is alive. Sent twice a second, also while it loads and in the midst of a step."""

    step_s: float
    """How long the present step has been running; 0 between steps."""


class Failed(Message, frozen=True):
    """The engine cannot go on (or could not start). Its process exits after this."""

    message: str


ToEngine = Submit | Abort | Shutdown
FromEngine = Ready | StepOutput | Refused | RequestFailed | QueueTimeout | Heartbeat | Pulse | Failed
