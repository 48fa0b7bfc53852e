"""The handle of a running answer, as the HTTP half holds it."""

from typing import Protocol, Self

from panacea.engine.outputs import TokenOutput


class TokenStream(Protocol):
    """Iterates over one request's tokens as they arrive. The last one has a finish reason.

    Iteration raises `RequestError` before the first token if the request could never be served, `QueueTimeoutError`
    if its turn did not come in time, `RequestFailedError` if this request alone cannot be computed, and another
    `EngineError` if the engine fails.
    """

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> TokenOutput: ...

    def close(self) -> None:
        """Ends the request in the engine, unless it has ended. Iteration stops. Calling it again changes nothing."""
        ...
