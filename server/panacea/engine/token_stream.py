"""The handle of a running answer, as the HTTP half holds it."""

from typing import Protocol, Self

from panacea.engine.outputs import TokenOutput


class TokenStream(Protocol):
    """Iterates over one request's tokens as they arrive. The last one has a finish reason.

    Iteration raises one of these:

    - `RequestError` if the request could never be served (before the first token), or cannot be served to its end;
    - `QueueTimeoutError` if it waited too long for its first step;
    - `RequestFailedError` if this request cannot be computed, and others can;
    - another `EngineError` if the engine fails.
    """

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> TokenOutput: ...

    def close(self) -> None:
        """Ends the request in the engine, unless it has ended. Iteration stops. Calling it again changes nothing."""
        ...
