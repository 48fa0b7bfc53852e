"""An answer that arrives piece by piece."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from types import TracebackType
from typing import Self

import httpx2

from panacea_client.answers import Usage
from panacea_client.exchange import Opened
from panacea_client.transcript import Transcript


class _Streamed:
    """What both kinds of stream know of their answer."""

    def __init__(self) -> None:
        self._transcript = Transcript()

    @property
    def text(self) -> str:
        """All that has come so far; behind the end, the whole answer."""
        return "".join(self._transcript.pieces)

    @property
    def message(self) -> dict[str, str]:
        """What has come so far as a message, to go on with: `[*messages, stream.message, {"role": "user", ...}]`."""
        return {"role": "assistant", "content": self.text}

    @property
    def finish_reason(self) -> str | None:
        """`stop`: the answer is complete. `length`: it reached a limit. None before the end."""
        return self._transcript.finish_reason

    @property
    def usage(self) -> Usage | None:
        """The numbers of tokens; None before the end."""
        return self._transcript.usage

    @property
    def preference(self) -> dict[str, float] | None:
        """The weights that the server uses, with sum 1; None before the first piece, and for the bare base model."""
        return self._transcript.chunk.preference if self._transcript.chunk else None

    @property
    def model(self) -> str | None:
        """None before the first piece."""
        return self._transcript.chunk.model if self._transcript.chunk else None

    @property
    def id(self) -> str | None:
        """None before the first piece."""
        return self._transcript.chunk.id if self._transcript.chunk else None

    @property
    def request_id(self) -> str | None:
        """The name under which the server's log knows the request; None before the first piece."""
        return self._transcript.request_id


class ChatStream(_Streamed, Iterator[str]):
    """An iterator over an answer's pieces of text.

    The request is sent when the first piece is asked for. The connection is closed, and with it the server's work on
    the answer, however the iteration ends: by its end, an error, `close()`, leaving the `with` block or dropping the
    stream.
    """

    def __init__(self, connect: Callable[[], Opened]) -> None:
        super().__init__()
        # A function and not a method: without a way back to this object, dropping it ends the generator at once.
        self._pieces = _pieces(connect, self._transcript)

    def __next__(self) -> str:
        return next(self._pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the answer where it is."""
        self._pieces.close()


class AsyncChatStream(_Streamed, AsyncIterator[str]):
    """An asynchronous iterator over an answer's pieces of text; else as `ChatStream`."""

    def __init__(self, connect: Callable[[], Awaitable[Opened]]) -> None:
        super().__init__()
        self._pieces = _async_pieces(connect, self._transcript)

    async def __anext__(self) -> str:
        return await anext(self._pieces)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the answer where it is."""
        await self._pieces.aclose()


def _pieces(connect: Callable[[], Opened], transcript: Transcript) -> Generator[str]:
    opened = connect()
    try:
        transcript.begin(opened)
        for data in opened.response.iter_bytes():
            yield from transcript.feed(data)
            if transcript.done:
                return
        transcript.end()
    except httpx2.RequestError as error:
        raise transcript.failure(error) from error
    finally:
        opened.response.close()


async def _async_pieces(connect: Callable[[], Awaitable[Opened]], transcript: Transcript) -> AsyncGenerator[str]:
    opened = await connect()
    try:
        transcript.begin(opened)
        async for data in opened.response.aiter_bytes():
            for piece in transcript.feed(data):
                yield piece
            if transcript.done:
                return
        transcript.end()
    except httpx2.RequestError as error:
        raise transcript.failure(error) from error
    finally:
        await opened.response.aclose()
