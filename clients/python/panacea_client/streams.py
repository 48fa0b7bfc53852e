"""Streamed answers, blocking and asynchronous."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from types import TracebackType
from typing import Self

import httpx2

from panacea_client.answers import Usage
from panacea_client.exchange import Opened
from panacea_client.transcript import Transcript


class _Streamed:
    """The answer so far, for both kinds of stream."""

    def __init__(self) -> None:
        self._transcript = Transcript()

    @property
    def text(self) -> str:
        """The text so far. At the end, it is the whole answer."""
        return "".join(self._transcript.pieces)

    @property
    def message(self) -> dict[str, str]:
        """The text so far as a message that continues a conversation.

        For example: `[*messages, stream.message, {"role": "user", ...}]`.
        """
        return {"role": "assistant", "content": self.text}

    @property
    def finish_reason(self) -> str | None:
        """`stop`: the answer is complete. `length`: it reached a limit. None before the end."""
        return self._transcript.finish_reason

    @property
    def usage(self) -> Usage | None:
        """The numbers of tokens. None before the end."""
        return self._transcript.usage

    @property
    def preference(self) -> dict[str, float] | None:
        """The weights that the server uses, with sum 1. None before the first piece, and for the bare base model."""
        return self._transcript.chunk.preference if self._transcript.chunk else None

    @property
    def model(self) -> str | None:
        """The model id of the answer. None before the first piece."""
        return self._transcript.chunk.model if self._transcript.chunk else None

    @property
    def id(self) -> str | None:
        """The id of the answer. None before the first piece."""
        return self._transcript.chunk.id if self._transcript.chunk else None

    @property
    def request_id(self) -> str | None:
        """The id of the request in the server's log. None before the first piece."""
        return self._transcript.request_id


class ChatStream(_Streamed, Iterator[str]):
    """An iterator over the pieces of an answer's text.

    The request is sent when the first piece is requested. The connection is closed at the end of the iteration, after
    an error, by `close()`, at the end of the `with` block, and when the stream is garbage-collected. This also stops
    the server's work on the answer.
    """

    def __init__(self, connect: Callable[[], Opened]) -> None:
        super().__init__()
        # A function, not a method: without a reference to this object, deleting it closes the generator at once.
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
        """Ends the answer now."""
        self._pieces.close()


class AsyncChatStream(_Streamed, AsyncIterator[str]):
    """An asynchronous iterator over the pieces of an answer's text. Otherwise as `ChatStream`."""

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
        """Ends the answer now."""
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
