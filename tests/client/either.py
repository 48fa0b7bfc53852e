"""The asynchronous client in the blocking one's shape, so that one suite tests both."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, Unpack

from panacea_client import (
    AsyncChatStream,
    AsyncPanacea,
    ChatAnswer,
    ChatOptions,
    CompletionOptions,
    Evaluation,
    Model,
    Panacea,
    Preference,
    Preferences,
    Question,
    StreamOptions,
    TextAnswer,
    Usage,
)


class EitherStream(Protocol):
    """What tests use of a stream."""

    @property
    def text(self) -> str: ...
    @property
    def message(self) -> dict[str, str]: ...
    @property
    def finish_reason(self) -> str | None: ...
    @property
    def usage(self) -> Usage | None: ...
    @property
    def preference(self) -> dict[str, float] | None: ...
    @property
    def model(self) -> str | None: ...
    @property
    def id(self) -> str | None: ...
    @property
    def request_id(self) -> str | None: ...
    def __iter__(self) -> Iterator[str]: ...
    def __next__(self) -> str: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def close(self) -> None: ...


class AwaitedStream:
    """An `AsyncChatStream` whose pieces are awaited one by one."""

    def __init__(self, runner: asyncio.Runner, stream: AsyncChatStream) -> None:
        self._runner = runner
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def text(self) -> str:
        return self._stream.text

    @property
    def message(self) -> dict[str, str]:
        return self._stream.message

    @property
    def finish_reason(self) -> str | None:
        return self._stream.finish_reason

    @property
    def usage(self) -> Usage | None:
        return self._stream.usage

    @property
    def preference(self) -> dict[str, float] | None:
        return self._stream.preference

    @property
    def model(self) -> str | None:
        return self._stream.model

    @property
    def id(self) -> str | None:
        return self._stream.id

    @property
    def request_id(self) -> str | None:
        return self._stream.request_id

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            return self._runner.run(_next(self._stream))
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Self:
        self._runner.run(self._stream.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._runner.run(self._stream.__aexit__(kind, error, traceback))

    def close(self) -> None:
        self._runner.run(self._stream.aclose())


async def _next(stream: AsyncIterator[str]) -> str:
    return await anext(stream)


class Awaited:
    """An `AsyncPanacea` whose answers are awaited in an event loop of its own."""

    def __init__(self, client: AsyncPanacea) -> None:
        self.runner = asyncio.Runner()
        self.client = client

    def __repr__(self) -> str:
        return repr(self.client)

    def close(self) -> None:
        self.runner.run(self.client.aclose())
        self.runner.close()

    def chat(self, question: Question, *, preference: Preference = None, **options: Unpack[ChatOptions]) -> ChatAnswer:
        return self.runner.run(self.client.chat(question, preference=preference, **options))

    def stream(
        self, question: Question, *, preference: Preference = None, **options: Unpack[StreamOptions]
    ) -> EitherStream:
        return AwaitedStream(self.runner, self.client.stream(question, preference=preference, **options))

    def compare(
        self,
        question: Question,
        preferences: Iterable[Preference],
        *,
        concurrency: int = 16,
        on_answer: Callable[[ChatAnswer], object] | None = None,
        **options: Unpack[ChatOptions],
    ) -> list[ChatAnswer]:
        return self.runner.run(
            self.client.compare(question, preferences, concurrency=concurrency, on_answer=on_answer, **options)
        )

    def sweep(
        self,
        question: Question,
        *,
        steps: int = 5,
        between: tuple[str, str] | None = None,
        concurrency: int = 16,
        on_answer: Callable[[ChatAnswer], object] | None = None,
        **options: Unpack[ChatOptions],
    ) -> list[ChatAnswer]:
        return self.runner.run(
            self.client.sweep(
                question, steps=steps, between=between, concurrency=concurrency, on_answer=on_answer, **options
            )
        )

    def complete(
        self,
        prompt: str | Sequence[str] | Sequence[int],
        *,
        preference: Preference = None,
        **options: Unpack[CompletionOptions],
    ) -> TextAnswer:
        return self.runner.run(self.client.complete(prompt, preference=preference, **options))

    def preferences(self) -> Preferences:
        return self.runner.run(self.client.preferences())

    def models(self) -> list[Model]:
        return self.runner.run(self.client.models())

    def evaluation(self) -> Evaluation:
        return self.runner.run(self.client.evaluation())

    def ready(self) -> bool:
        return self.runner.run(self.client.ready())


Either = Panacea | Awaited
MakeClient = Callable[..., Either]
"""Called with the constructors' arguments; the client is closed when the test ends."""
