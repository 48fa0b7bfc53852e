"""The handle of a running answer in the engine's own process."""

from collections import deque
from collections.abc import Callable
from typing import Self

from panacea.engine.outputs import TokenOutput
from panacea.errors import PanaceaError


class LocalStream:
    """Iterates over the tokens of one request. If no token is waiting, it runs steps of the engine until one arrives.

    Several streams may be open. Each step computes tokens for all of them, and each token waits in its own stream.
    """

    def __init__(self, request_id: str, advance: Callable[[], object], abort: Callable[[str], None]) -> None:
        """`advance` runs one step and delivers its tokens; `abort` ends a request in the engine."""
        self.request_id = request_id
        self._advance = advance
        self._abort = abort
        self._arrived: deque[TokenOutput | PanaceaError] = deque()
        self._ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TokenOutput:
        """The next token. Raises `RequestError` or `RequestFailedError` if the engine could not compute it."""
        while not self._arrived:
            if self._ended:
                raise StopIteration
            self._advance()
        return self._pop()

    def take(self) -> list[TokenOutput]:
        """The tokens that have arrived, without running a step. Raises like `__next__`."""
        return [self._pop() for _ in range(len(self._arrived))]

    def deliver(self, item: TokenOutput | PanaceaError) -> None:
        """The engine has a token for this stream, or an error that ends it."""
        self._ended = isinstance(item, PanaceaError) or item.finish_reason is not None
        self._arrived.append(item)

    @property
    def ended(self) -> bool:
        """Whether the last token or an error has arrived, or the stream was closed."""
        return self._ended

    def close(self) -> None:
        """Ends the request in the engine, unless it has ended. Iteration stops."""
        self._arrived.clear()
        if not self._ended:
            self._ended = True
            self._abort(self.request_id)

    def _pop(self) -> TokenOutput:
        item = self._arrived.popleft()
        if isinstance(item, PanaceaError):
            raise item
        return item
