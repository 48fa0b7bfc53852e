"""The blocking client."""

import ssl
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self, Unpack

from panacea_client import calls
from panacea_client.answers import ChatAnswer, TextAnswer
from panacea_client.calls import Call
from panacea_client.errors import UnavailableError
from panacea_client.gathering import gather, gather_apart
from panacea_client.grid import preference_grid
from panacea_client.information import Evaluation, Model, Preferences
from panacea_client.options import ChatOptions, CompletionOptions, Preference, Question, StreamOptions
from panacea_client.settings import DEFAULT_RETRIES, DEFAULT_TIMEOUT_S, ClientSettings
from panacea_client.streams import ChatStream
from panacea_client.transports import AsyncTransport, Transport

DEFAULT_CONCURRENCY = 16
"""Enough to fill a batch. The server queues requests that do not fit into its batch."""


class Panacea:
    """A client of one server. Several threads may share it.

    >>> from panacea_client import Panacea
    >>> client = Panacea()
    >>> answer = client.chat("How do I sharpen a knife?", preference={"concise": 1}, temperature=0)
    >>> print(answer.text)
    Soak the whetstone in water. Tip: test the blade on a tomato. Also, finish on the finer stone.
    >>> answer.preference
    {'helpful': 0.0, 'harmless': 0.0, 'concise': 1.0}

    base_url: URL of the server, with or without `/v1`. Default: PANACEA_BASE_URL, else http://localhost:8000.
    api_key: API key of the server, if it needs one. Default: PANACEA_API_KEY.
    timeout: a request fails after this number of seconds without a byte from the server. A stream may take longer in
        total. An answer that does not stream arrives all at once, so it must be complete within the timeout.
    max_retries: number of further attempts after a lost connection or a status of 408, 409, 429 or 5xx. The pauses
        grow. If the server asks for a pause of at most a minute, the client waits that long. A request is not retried
        after the first byte of a stream, or after the timeout.
    headers: additional headers of every request, for example for a gateway.
    verify: False accepts any certificate. An `ssl.SSLContext` defines which certificates are accepted. True accepts
        those of known authorities, or of SSL_CERT_FILE if it is set.
    proxy: URL of a proxy: http, https, socks5 or socks5h. Default: the variables HTTP_PROXY, HTTPS_PROXY, ALL_PROXY
        and NO_PROXY. SOCKS needs `panacea-client[socks]`.

    Every method raises `RequestError` if the request gets no answer, and `TypeError` or `ValueError` for invalid
    arguments. The constructor raises `SettingsError`.
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
        self._transport = Transport(self._settings)
        # Closes the connections when the client is garbage-collected without `close`.
        self._closing = weakref.finalize(self, self._transport.close)

    def __repr__(self) -> str:
        return f"Panacea({self.base_url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def base_url(self) -> str:
        """The server's URL, without `/v1`."""
        return self._settings.base_url

    def close(self) -> None:
        """Closes all connections. Leaving the `with` block also does this."""
        self._closing()

    def chat(self, question: Question, *, preference: Preference = None, **options: Unpack[ChatOptions]) -> ChatAnswer:
        """The answer to a question or a conversation.

        >>> answer = client.chat("How do I sharpen a knife?", preference={"helpful": 2, "concise": 1}, max_tokens=8)
        >>> answer.usage.completion_tokens
        8

        To continue a conversation, append the answer's message:

        >>> messages = [{"role": "user", "content": "How do I boil an egg?"}]
        >>> messages.append(client.chat(messages).message)
        >>> messages.append({"role": "user", "content": "How do I sharpen a knife?"})
        >>> len(client.chat(messages, n=2).texts)
        2
        """
        return self._transport.ask(calls.chat(question, preference, options))

    def stream(
        self, question: Question, *, preference: Preference = None, **options: Unpack[StreamOptions]
    ) -> ChatStream:
        """The answer as a stream of pieces, as the model generates them.

        >>> with client.stream("How do I sharpen a knife?", preference=[0, 0, 1], temperature=0) as stream:
        ...     for piece in stream:
        ...         print(piece, end="")
        Soak the whetstone in water. Tip: test the blade on a tomato. Also, finish on the finer stone.
        >>> stream.finish_reason
        'stop'
        """
        return ChatStream(partial(self._transport.open, calls.stream(question, preference, options)))

    def compare(
        self,
        question: Question,
        preferences: Iterable[Preference],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        on_answer: Callable[[ChatAnswer], object] | None = None,
        **options: Unpack[ChatOptions],
    ) -> list[ChatAnswer]:
        """The same question at several preferences, at most `concurrency` at a time.

        The answers are in the order of the preferences.

        >>> answers = client.compare("How do I boil an egg?", [{"helpful": 1}, {"concise": 1}], temperature=0)
        >>> [len(answer.text.split()) for answer in answers]
        [39, 25]

        `on_answer` is called with each answer when it arrives, in the calling thread. For a progress bar of tqdm:
        `on_answer=lambda _: bar.update()`. If one request fails after its retries, the others are cancelled, also on
        the server, and its error is raised. Ctrl-C cancels all of them.
        """
        return self._gather(
            [calls.chat(question, preference, options) for preference in preferences], concurrency, on_answer
        )

    def sweep(
        self,
        question: Question,
        *,
        steps: int = 5,
        between: tuple[str, str] | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        on_answer: Callable[[ChatAnswer], object] | None = None,
        **options: Unpack[ChatOptions],
    ) -> list[ChatAnswer]:
        """The same question at a grid of preferences, in the order of `preference_grid`. Otherwise as `compare`.

        `steps` is the number of points on an edge of the space: three dimensions and 5 steps give 15 answers. `between`
        names two dimensions, and limits the sweep to the edge between them.

        >>> answers = client.sweep("How do I boil an egg?", steps=3, between=("helpful", "concise"), temperature=0)
        >>> [(answer.preference["concise"], len(answer.text.split())) for answer in answers]
        [(0.0, 39), (0.5, 39), (1.0, 25)]
        """
        grid = preference_grid(self.preferences().names, steps, between)
        return self.compare(question, grid, concurrency=concurrency, on_answer=on_answer, **options)

    def complete(
        self,
        prompt: str | Sequence[str] | Sequence[int],
        *,
        preference: Preference = None,
        **options: Unpack[CompletionOptions],
    ) -> TextAnswer:
        """Continues a text, several texts, or token ids, without a chat template.

        >>> answer = client.complete("To boil an egg,", preference={"concise": 1}, max_tokens=5, temperature=0)
        >>> answer.usage.completion_tokens
        5
        """
        return self._transport.ask(calls.complete(prompt, preference, options))

    def preferences(self) -> Preferences:
        """The server's dimensions, its default and its presets.

        >>> client.preferences().names
        ['helpful', 'harmless', 'concise']
        """
        return self._transport.ask(calls.preferences())

    def models(self) -> list[Model]:
        """The server's model ids: the model, its bare base, and each preset.

        >>> [model.id for model in client.models()][:2]
        ['panacea-demo', 'panacea-demo:base']
        """
        return self._transport.ask(calls.models())

    def evaluation(self) -> Evaluation:
        """The adapter's evaluation. Raises `NotFoundError` if there is none.

        >>> sweep = client.evaluation().sweeps[0]
        >>> sweep.spearman["concise"] > 0.8
        True
        """
        return self._transport.ask(calls.evaluation())

    def ready(self) -> bool:
        """Whether the server can answer now. Does not retry. Raises `NetworkError` if no server can be reached.

        >>> client.ready()
        True
        """
        try:
            self._transport.ask(calls.ready())
        except UnavailableError:
            return False
        return True

    def _gather(
        self, asked: Sequence[Call[ChatAnswer]], concurrency: int, on_answer: Callable[[ChatAnswer], object] | None
    ) -> list[ChatAnswer]:
        if not self._closing.alive:
            raise RuntimeError("the client has been closed")

        async def work(report: Callable[[ChatAnswer], object]) -> list[ChatAnswer]:
            transport = AsyncTransport(self._settings)
            try:
                return await gather([partial(transport.ask, call) for call in asked], concurrency, report)
            finally:
                await transport.aclose()

        return gather_apart(work, on_answer)
