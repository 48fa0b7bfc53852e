"""A client's connection: who is slow, silent or one too many is cut off, and what is no HTTP is answered in our words.

uvicorn bounds the time between two requests alone. All other times are looked at twice a second, for all connections
together.
"""

import socket
import struct
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any, Literal

import h11
import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from panacea.api.access.admission import Admission
from panacea.api.error_responses import ApiError
from panacea.config import Limits

_CROWDED = "crowded"
_DROP = "drop_connection"

SPARE_CONNECTIONS = 50
"""So many connections beyond the limit are told so, and their probes are answered. Beyond these they are closed."""

_BODY_GRACE_S = 1.0
"""The application answers a body that does not come; the connection is cut off where it did not."""

_RESET = struct.pack("ii", 1, 0)
"""Linger for no time at all."""

Phase = Literal["new", "idle", "head", "body", "answer"]


def is_crowded(scope: Scope) -> bool:
    """Whether a request came over a connection that is one too many."""
    return bool(scope.get("state", {}).get(_CROWDED))


def drop_of(scope: Scope) -> Callable[[], None] | None:
    """What ends a request's connection at once; None on another server."""
    drop: Callable[[], None] | None = scope.get("state", {}).get(_DROP)
    return drop


class HttpConfig(uvicorn.Config):
    """uvicorn's settings, with ours for what it has no word for."""

    def __init__(self, app: ASGIApp, limits: Limits, admission: Admission, **settings: Any) -> None:
        super().__init__(
            app,
            http=Connection,
            ws="none",
            log_config=None,  # requests have their line in our own log
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=limits.max_head_bytes,
            timeout_keep_alive=round(limits.idle_timeout_s) + 60,  # ours comes first
            **settings,
        )
        self.limits = limits
        self.admission = admission


class Connection(H11Protocol):
    """uvicorn's connection, with a limit to every time that a client may take."""

    config: HttpConfig

    def __init__(self, config: HttpConfig, *arguments: Any, **more: Any) -> None:
        super().__init__(config, *arguments, **more)
        self._limits = config.limits
        self._phase: Phase = "new"
        self._phase_began = time.monotonic()
        self._unsent = 0
        self._last_sent = time.monotonic()
        self._is_crowded = False
        self._is_dropped = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        beyond = len(self.connections) - self._limits.max_connections
        self._is_crowded = beyond > 0
        if beyond > SPARE_CONNECTIONS:
            self.config.admission.count("too_many_connections")
            self.transport.abort()

    def handle_events(self) -> None:
        scope = self.scope
        super().handle_events()
        if self.scope is not scope:  # a request began; its task has not run yet
            self.scope.setdefault("state", {}).update({_CROWDED: self._is_crowded, _DROP: self.drop})
        self._see_phase()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._see_phase()

    def _see_phase(self) -> None:
        match self.conn.their_state:
            case h11.IDLE if self.conn.trailing_data[0]:
                phase: Phase = "head"
            case h11.IDLE if self._phase == "new":
                phase = "new"
            case h11.IDLE:
                phase = "idle"
            case h11.SEND_BODY:
                phase = "body"
            case _:
                phase = "answer"
        if phase != self._phase:
            self._phase, self._phase_began = phase, time.monotonic()

    def check(self, now: float) -> None:
        """Cuts the connection off if its client took too long. To be called from time to time."""
        self._check_reader(now)
        if self.transport.is_closing():
            return
        spent_s = now - self._phase_began
        limits = self._limits
        match self._phase:
            case "new" if spent_s > limits.head_timeout_s:
                self.transport.close()
            case "idle" if spent_s > limits.idle_timeout_s:
                self.transport.close()
            case "head" if spent_s > limits.head_timeout_s:
                self.config.admission.count("head_timeout")
                self._end_with(
                    ApiError(408, f"the headers were not there after {limits.head_timeout_s:g} s", code="head_timeout")
                )
            case "body" if spent_s > limits.body_timeout_s + _BODY_GRACE_S:
                self.transport.abort()
            case _:
                pass

    def _check_reader(self, now: float) -> None:
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent:
            self._last_sent = now
        self._unsent = unsent
        # Below uvicorn's threshold it may be that nobody has anything more to send.
        stuck = self.flow.write_paused or self._phase != "answer" or self.transport.is_closing()
        if stuck and now - self._last_sent > self._limits.slow_reader_timeout_s:
            self.drop()

    def drop(self) -> None:
        """Resets the connection of a client that does not read: what the kernel holds for it goes too."""
        if not self._is_dropped:
            self._is_dropped = True
            self.config.admission.count("slow_reader")
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP, instead of uvicorn, which calls this while it handles h11's error."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if status == 431:
            most = self._limits.max_head_bytes
            self._end_with(ApiError(431, f"the headers have more than {most} bytes", code="headers_too_large"))
        else:
            self._end_with(ApiError(400, "this is not valid HTTP", code="invalid_http"))

    def _end_with(self, error: ApiError) -> None:
        """Says `error` where no answer has begun, and closes the connection."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        body = error.body()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            "x-request-id": uuid.uuid4().hex,
        }
        response = h11.Response(
            status_code=error.status, headers=list(headers.items()), reason=STATUS_PHRASES[error.status]
        )
        events = (response, h11.Data(data=body), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        if self.cycle is not None:  # pyright: ignore[reportUnnecessaryComparison]  # it is, before the first request
            self.cycle.disconnected = True  # whoever reads the body learns that no more comes
            self.cycle.message_event.set()
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade that nobody supports is a request like any other."""
