"""Cancels the request of a client that disconnects."""

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class CancelOnDisconnect:
    """Cancels a request's task when its client disconnects.

    ASGI reports a disconnect only to a caller of `receive`, and the server reads from the socket only during such a
    call. So after the body has been read, a watcher calls `receive` until the answer is complete. The task is cancelled
    once, by asyncio, so `finally` blocks may await.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        task = asyncio.current_task()
        assert task is not None
        watcher: asyncio.Task[None] | None = None
        answered = gone = False

        async def watch() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            if not answered:
                gone = True
                task.cancel()

        async def receive_body() -> Message:
            nonlocal watcher
            if watcher is not None:
                await asyncio.shield(watcher)
                return {"type": "http.disconnect"}
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                watcher = asyncio.create_task(watch())
            return message

        async def send_answer(message: Message) -> None:
            nonlocal answered
            answered = answered or (message["type"] == "http.response.body" and not message.get("more_body", False))
            await send(message)

        try:
            await self.app(scope, receive_body, send_answer)
        except ClientDisconnect:
            pass  # the client disconnected while its body was read
        except asyncio.CancelledError:
            # A cancellation from elsewhere, such as a shutdown, is passed on.
            if not gone or task.uncancel() > 0:
                raise
        finally:
            if watcher is not None:
                watcher.cancel()
