"""The asynchronous client."""

import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self, Unpack
from weakref import WeakSet

from panacea_client import calls
from panacea_client.answers import ChatAnswer, TextAnswer
from panacea_client.client import DEFAULT_CONCURRENCY
from panacea_client.errors import UnavailableError
from panacea_client.gathering import gather
from panacea_client.grid import preference_grid
from panacea_client.information import Evaluation, Model, Preferences
from panacea_client.options import ChatOptions, CompletionOptions, Preference, Question, StreamOptions
from panacea_client.settings import DEFAULT_RETRIES, DEFAULT_TIMEOUT_S, ClientSettings
from panacea_client.streams import AsyncChatStream
from panacea_client.transports import AsyncTransport


class AsyncPanacea:
    """A client of one server for one event loop. Its methods and arguments are those of `Panacea`.

    >>> import asyncio
    >>> from panacea_client import AsyncPanacea
    >>> async def main():
    ...     async with AsyncPanacea() as client:
    ...         answer = await client.chat("How do I boil an egg?", preference={"concise": 1}, temperature=0)
    ...         print(answer.text)
    >>> asyncio.run(main())
    Have an egg and a small pot ready. Boil water in the egg pot. Lower the egg in gently.
    Boil the egg for seven minutes.

    Unlike `Panacea`, it is not closed when it is garbage-collected: use `async with`, or await `aclose()`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        max_retries: int = DEFAULT_RETRIES,
        headers: Mapping[str, str] | None = None,
        verify: ssl.SSLContext | bool = True,
        proxy: str | None = None,
    ) -> None:
        self._settings = ClientSettings.of(base_url, api_key, timeout, max_retries, headers, verify, proxy)
        self._transport = AsyncTransport(self._settings)
        self._streams: WeakSet[AsyncChatStream] = WeakSet()

    def __repr__(self) -> str:
        return f"AsyncPanacea({self.base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def base_url(self) -> str:
        """The server's URL, without `/v1`."""
        return self._settings.base_url

    async def aclose(self) -> None:
        """Ends all streams and closes all connections. Leaving the `async with` block also does this."""
        # An unfinished stream that is still referenced would be closed only when the event loop ends. The loop closes
        # the stream's connection at the same time, and reports an error.
        for stream in tuple(self._streams):
            with suppress(RuntimeError):  # another task reads from it, and will get an error
                await stream.aclose()
        await self._transport.aclose()

    async def chat(
        self, question: Question, *, preference: Preference = None, **options: Unpack[ChatOptions]
    ) -> ChatAnswer:
        """The answer to a question or a conversation. See `Panacea.chat`."""
        return await self._transport.ask(calls.chat(question, preference, options))

    def stream(
        self, question: Question, *, preference: Preference = None, **options: Unpack[StreamOptions]
    ) -> AsyncChatStream:
        """The answer as a stream of pieces. This method returns at once; the request is sent for the first piece.

        >>> async def main():
        ...     async with AsyncPanacea() as client, client.stream("How do I boil an egg?", temperature=0) as stream:
        ...         async for piece in stream:
        ...             print(piece, end="")
        >>> asyncio.run(main())
        Have an egg and a small pot ready. Boil water in the egg pot. ...
        """
        stream = AsyncChatStream(partial(self._transport.open, calls.stream(question, preference, options)))
        self._streams.add(stream)
        return stream

    async def compare(
        self,
        question: Question,
        preferences: Iterable[Preference],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        on_answer: Callable[[ChatAnswer], object] | None = None,
        **options: Unpack[ChatOptions],
    ) -> list[ChatAnswer]:
        """The same question at several preferences. See `Panacea.compare`. `on_answer` is called in the event loop."""
        asked = [calls.chat(question, preference, options) for preference in preferences]
        return await gather([partial(self._transport.ask, call) for call in asked], concurrency, on_answer)

    async def sweep(
        self,
        question: Question,
        *,
        steps: int = 5,
        between: tuple[str, str] | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        on_answer: Callable[[ChatAnswer], object] | None = None,
        **options: Unpack[ChatOptions],
    ) -> list[ChatAnswer]:
        """The same question at preferences from the whole space. See `Panacea.sweep`."""
        grid = preference_grid((await self.preferences()).names, steps, between)
        return await self.compare(question, grid, concurrency=concurrency, on_answer=on_answer, **options)

    async def complete(
        self,
        prompt: str | Sequence[str] | Sequence[int],
        *,
        preference: Preference = None,
        **options: Unpack[CompletionOptions],
    ) -> TextAnswer:
        """Continues a text, several texts, or token ids, without a chat template."""
        return await self._transport.ask(calls.complete(prompt, preference, options))

    async def preferences(self) -> Preferences:
        """The server's dimensions, its default and its presets."""
        return await self._transport.ask(calls.preferences())

    async def models(self) -> list[Model]:
        """The server's model ids: the model, its bare base, and each preset."""
        return await self._transport.ask(calls.models())

    async def evaluation(self) -> Evaluation:
        """The adapter's evaluation. Raises `NotFoundError` if there is none."""
        return await self._transport.ask(calls.evaluation())

    async def ready(self) -> bool:
        """Whether the server can answer now. Does not retry. Raises `NetworkError` if no server can be reached."""
        try:
            await self._transport.ask(calls.ready())
        except UnavailableError:
            return False
        return True
