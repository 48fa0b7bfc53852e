"""What the HTTP half needs of an engine."""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from panacea.engine.outputs import EngineInfo, EngineStats, TokenOutput
from panacea.engine.sampling_params import SamplingParams
from panacea.preference import Preference


class EngineLike(Protocol):
    """`panacea.engine.supervisor.Supervisor`, one `EngineClient`, or a few lines that stand in for it in a test."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def stats(self) -> EngineStats | None:
        """The engine's state as it was last heard of; None before the first time."""
        ...

    @property
    def alive(self) -> bool: ...

    @property
    def heartbeat_age_s(self) -> float: ...

    @property
    def restarts(self) -> int:
        """How often another process took the place of one that had failed."""
        ...

    def generate(
        self,
        prompt_ids: Sequence[int],
        preference: Preference | None,
        params: SamplingParams,
        cache_salt: str = "",
        tenant: str = "",
    ) -> AsyncGenerator[TokenOutput]:
        """One request's tokens as they come; `preference` None is the bare base model. Requests share cached prefixes
        with those of equal `cache_salt` alone, and tenants take turns.

        Raises `RequestError` before the first token, or `EngineError`. Closing the generator ends the request.
        """
        ...
