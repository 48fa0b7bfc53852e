"""The middleware that admits requests to the routes and counts the bytes of their bodies."""

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from panacea.api.access.admission import Admission, keep_ticket
from panacea.api.access.bearer_keys import account_of
from panacea.api.connections.connection import is_crowded
from panacea.api.error_responses import ApiError

PROBES = frozenset({"/health", "/ready", "/metrics"})
"""Paths that are answered under any load, because they report it."""


class Gate:
    """Rejects requests beyond the limits before any of their body is read.

    A POST request holds a ticket until it is answered. Other requests need none, because they cost very little.

    Its tenant is its API key. A server without keys has one tenant. Addresses do not define tenants: many people share
    one behind a proxy or a firewall, and one person can have many.
    """

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self.app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        account = account_of(request)

        async def send_with_rates(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(account.rate_headers())
            await send(message)

        try:
            self._check_open(scope)
            if scope["method"] != "POST":
                await self.app(scope, receive, send)
                return
            ticket = self._admission.enter(account)
        except ApiError as error:
            await error.response()(scope, receive, send_with_rates)
            return
        keep_ticket(request, ticket)

        async def counted_receive() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                ticket.hold_bytes(len(message.get("body", b"")))
            return message

        try:
            await self.app(scope, counted_receive, send_with_rates)
        finally:
            ticket.close()

    def _check_open(self, scope: Scope) -> None:
        if self._admission.draining:
            raise self._admission.shutting_down()
        if is_crowded(scope):
            raise self._admission.too_many_connections()
