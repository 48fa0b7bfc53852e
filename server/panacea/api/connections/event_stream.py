"""A response of server-sent events."""

from collections.abc import AsyncGenerator
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from panacea.api.connections.backlog import Backlog
from panacea.api.connections.connection import drop_of

_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx would buffer the events
}


class EventStream(Response):
    """Sends events as they arrive. At the end, and after any error, it closes them and their source.

    The connection of a client that falls too far behind is reset.
    """

    def __init__(self, events: AsyncGenerator[bytes], source: AsyncGenerator[object], backlog: Backlog[Any]) -> None:
        """`events` reads `source`. Both are closed, because closing a generator that has not started closes nothing
        else. `backlog` holds what `source` has not read yet."""
        self.status_code = 200
        self.background = None
        self.init_headers(_HEADERS)
        self._events = events
        self._source = source
        self._backlog = backlog

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._backlog.give_up = drop_of(scope)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for event in self._events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await self._events.aclose()
            await self._source.aclose()


def sse(data: bytes, event: str | None = None) -> bytes:
    """One event. `data` must not contain line breaks. Compact JSON has none."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + data + b"\n\n"
