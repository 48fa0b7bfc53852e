"""The door to the routes: lets a request in while there is room, and counts what it brings."""

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from panacea.api.access.admission import Admission, keep_ticket
from panacea.api.access.bearer_keys import key_digest
from panacea.api.connections.connection import is_crowded
from panacea.api.error_responses import ApiError

PROBES = frozenset({"/health", "/ready", "/metrics"})
"""Answered whatever the load: they are how somebody learns of it."""


class Gate:
    """Refuses what there is no room for before any of its body is read.

    Requests with a body hold a ticket until they are answered. The others cost next to nothing.
    """

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self.app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        try:
            self._check_open(scope)
            if scope["method"] != "POST":
                await self.app(scope, receive, send)
                return
            ticket = self._admission.enter(tenant(request))
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        keep_ticket(request, ticket)

        async def counted_receive() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                ticket.hold_bytes(len(message.get("body", b"")))
            return message

        try:
            await self.app(scope, counted_receive, send)
        finally:
            ticket.close()

    def _check_open(self, scope: Scope) -> None:
        if self._admission.draining:
            raise self._admission.shutting_down()
        if is_crowded(scope):
            raise self._admission.too_many_connections()


def tenant(request: Request) -> str:
    """Whose share a request takes from: its API key's. A server without keys has one tenant.

    Not its address': behind a proxy or a company's firewall many people have one, and one person can have many.
    """
    digest = key_digest(request)
    return "" if digest is None else digest.hex()
