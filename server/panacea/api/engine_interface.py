"""The interface of an engine, as the HTTP routes use it."""

from typing import Protocol

from panacea.engine.outputs import EngineInfo, EngineStats
from panacea.engine.request import Request
from panacea.engine.token_stream import TokenStream


class EngineLike(Protocol):
    """`panacea.engine.supervisor.Supervisor`, one `EngineClient`, or a small fake in a test."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def stats(self) -> EngineStats | None:
        """The engine's state at its last heartbeat; None before the first."""
        ...

    @property
    def alive(self) -> bool: ...

    @property
    def heartbeat_age_s(self) -> float: ...

    @property
    def restarts(self) -> int:
        """How many times a new process replaced a failed one."""
        ...

    def open(self, request: Request) -> TokenStream:
        """Sends a request and returns the handle of its answer. Raises `EngineError` while no engine serves."""
        ...
