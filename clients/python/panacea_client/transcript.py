"""Decodes a stream's bytes into the answer so far, without I/O."""

import json
from collections.abc import Iterator

import httpx2
from pydantic import ValidationError

from panacea_client.answers import Chunk, Usage
from panacea_client.errors import StreamBrokenError, StreamError, TimedOutError
from panacea_client.exchange import Opened
from panacea_client.failures import error_object, invalid_response, shown, word
from panacea_client.sse import Event, EventDecoder, EventTooLargeError


class Transcript:
    """Decodes the bytes of one stream into pieces of text, and keeps the answer's other fields."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.chunk: Chunk | None = None
        """The last chunk. The fields that all chunks share are read from it."""
        self.request_id: str | None = None
        self.done = False
        self._decoder = EventDecoder()
        self._opened: Opened | None = None

    def begin(self, opened: Opened) -> None:
        """Raises `InvalidResponseError` if the response is not an event stream."""
        self._opened = opened
        self.request_id = opened.request_id
        if not opened.response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            raise invalid_response(opened.response, "it is not an event stream", opened.request_id)

    def feed(self, data: bytes) -> Iterator[str]:
        """The pieces of text that `data` completes.

        Raises `StreamError` for an error event, and `InvalidResponseError` for an invalid event.
        """
        try:
            for event in self._decoder.feed(data):
                piece = self._piece(event)
                if piece:
                    self.pieces.append(piece)
                    yield piece
                if self.done:
                    return
        except EventTooLargeError as error:
            raise self._invalid(str(error)) from error

    def end(self) -> None:
        """Call it after the last bytes. Raises `StreamBrokenError` if the stream is not complete."""
        if not self.done:
            raise self._broken("[DONE] is missing")

    def failure(self, error: httpx2.RequestError) -> StreamBrokenError | TimedOutError:
        """The error for a connection that failed during the stream."""
        response, request_id = self._response()
        url = str(response.request.url)
        if isinstance(error, httpx2.TimeoutException):
            message = f"the stream from {url} sent nothing for longer than the timeout"
            return TimedOutError(message, url=url, request_id=request_id)
        return self._broken(shown(str(error)) or type(error).__name__)

    def _piece(self, event: Event) -> str | None:
        if event.data == "[DONE]":
            self.done = True
            return None
        if event.name not in {"message", "error"}:
            return None  # an event type of a newer server
        self._raise_if_error(event)
        try:
            chunk = Chunk.model_validate_json(event.data)
        except ValidationError as error:
            raise self._invalid("an event is not a chunk of an answer") from error
        self.chunk = chunk
        self.usage = chunk.usage or self.usage
        for choice in chunk.choices:
            self.finish_reason = choice.finish_reason or self.finish_reason
        return "".join(choice.delta.content or "" for choice in chunk.choices)

    def _raise_if_error(self, event: Event) -> None:
        try:
            said = error_object(json.loads(event.data))
        # RecursionError is raised for a hundred thousand brackets.
        except (ValueError, RecursionError):
            said = {}
        if not said and event.name != "error":
            return
        response, request_id = self._response()
        raise StreamError(
            word(said, "message") or "the server ended the stream with an error without a message",
            url=str(response.request.url),
            request_id=request_id,
            param=word(said, "param"),
            code=word(said, "code"),
        )

    def _broken(self, reason: str) -> StreamBrokenError:
        response, request_id = self._response()
        url = str(response.request.url)
        message = f"the stream from {url} ended before the answer was complete: {reason}"
        return StreamBrokenError(message, url=url, request_id=request_id)

    def _invalid(self, problem: str) -> Exception:
        response, request_id = self._response()
        return invalid_response(response, problem, request_id)

    def _response(self) -> tuple[httpx2.Response, str]:
        assert self._opened is not None
        return self._opened.response, self._opened.request_id
