"""A client that goes away ends its request."""

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class CancelOnDisconnect:
    """Cancels a request's task once its client is gone, whatever it is waiting for.

    ASGI tells of a disconnect only to those who ask for the next message, and reading goes on only while somebody asks.
    So once the body was read, a watcher asks until the answer is complete. The cancellation is asyncio's own, delivered
    once: `finally` blocks may await.
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
            pass  # it went away while its body was read
        except asyncio.CancelledError:
            # A cancellation from elsewhere, such as a shutdown, goes on.
            if not gone or task.uncancel() > 0:
                raise
        finally:
            if watcher is not None:
                watcher.cancel()
