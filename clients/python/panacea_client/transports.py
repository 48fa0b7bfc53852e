"""The I/O of the blocking and the asynchronous client. All other code is shared."""

import asyncio
import time
from typing import TypeVar

import httpx2

from panacea_client.calls import Call
from panacea_client.exchange import ExchangeSteps, Opened, Send, StepResult, Wait, exchange, opening
from panacea_client.proxies import socks_errors
from panacea_client.settings import ClientSettings

T = TypeVar("T")


class Transport:
    """Performs the steps of an exchange, blocking."""

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        self._http = httpx2.Client(**settings.http_options())

    def ask(self, call: Call[T]) -> T:
        """The answer. Raises `RequestError`."""
        return self._run(exchange(self.settings, call))

    def open(self, call: Call[None]) -> Opened:
        """A response with an unread body, which the caller closes. Raises `RequestError`."""
        return self._run(opening(self.settings, call, stream=True))

    def close(self) -> None:
        self._http.close()

    def _run(self, steps: ExchangeSteps[T]) -> T:
        outcome: StepResult = None
        try:
            while True:
                outcome = self._do(steps.send(outcome))
        except StopIteration as end:
            result: T = end.value
            return result

    def _do(self, step: Send | Wait) -> StepResult:
        if isinstance(step, Wait):
            time.sleep(step.seconds)
            return None
        try:
            response = self._http.send(step.request, stream=step.stream)
            if step.stream and not response.is_success:
                try:
                    response.read()
                finally:
                    response.close()
        except httpx2.RequestError as error:
            return error
        except socks_errors() as error:
            return httpx2.ProxyError(f"it is not a SOCKS5 proxy: {error}", request=step.request)
        return response


class AsyncTransport:
    """Performs the steps of an exchange in the running event loop."""

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        self._http = httpx2.AsyncClient(**settings.http_options())

    async def ask(self, call: Call[T]) -> T:
        """The answer. Raises `RequestError`."""
        return await self._run(exchange(self.settings, call))

    async def open(self, call: Call[None]) -> Opened:
        """A response with an unread body, which the caller closes. Raises `RequestError`."""
        return await self._run(opening(self.settings, call, stream=True))

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _run(self, steps: ExchangeSteps[T]) -> T:
        outcome: StepResult = None
        try:
            while True:
                outcome = await self._do(steps.send(outcome))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _do(self, step: Send | Wait) -> StepResult:
        if isinstance(step, Wait):
            await asyncio.sleep(step.seconds)
            return None
        try:
            response = await self._http.send(step.request, stream=step.stream)
            if step.stream and not response.is_success:
                try:
                    await response.aread()
                finally:
                    await response.aclose()
        except httpx2.RequestError as error:
            return error
        except socks_errors() as error:
            return httpx2.ProxyError(f"it is not a SOCKS5 proxy: {error}", request=step.request)
        return response
