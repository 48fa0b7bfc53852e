"""A client's connection, with limits on time and number, and error responses for invalid HTTP.

uvicorn limits only the idle time between two requests. The server checks all other limits twice a second, for all
connections together. Their clock stands still while the event loop is busy, because nothing is read then.
"""

import socket
import struct
import sys
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import h11
import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from panacea.api.access.admission import Admission
from panacea.api.connections.bounded_h11 import BoundedH11, TooManyChunksError
from panacea.api.connections.client_address import UNIX, TrustedProxies, plain_address, shared_address
from panacea.api.connections.crowd import ClosableMember, Crowd, has_unread_data
from panacea.api.connections.loop_clock import loop_clock
from panacea.api.error_responses import ApiError
from panacea.config import Limits

_CROWDED = "crowded"
_DROP = "drop_connection"
_HAS_BODY = "has_body"

SPARE_CONNECTIONS = 50
"""Number of connections beyond the limit that get an error response, and whose probes are answered. Any further
connection is closed."""

_BODY_GRACE_S = 1.0
"""The application answers 408 if a body does not arrive. If it has not done so after this time, the connection is
closed."""

_LINGER_S = 10.0
_LINGER_BYTES = 16 << 20
"""How much of a request is still read after its answer, so that its client reads the answer before it sees the end.
Closing a socket that holds unread data resets the connection, and the answer would be lost."""

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with a time of 0: closing the socket resets the connection."""

ConnectionPhase = Literal["new", "idle", "head", "body", "answer", "linger"]
_SERVED: tuple[ConnectionPhase, ...] = ("answer",)
"""With a complete request. In all other phases, the connection is silent and may have to make room."""


def is_crowded(scope: Scope) -> bool:
    """Whether a request's connection exceeds the limit on connections."""
    return bool(scope.get("state", {}).get(_CROWDED))


def drop_of(scope: Scope) -> Callable[[], None] | None:
    """The function that resets a request's connection. None under another HTTP server."""
    drop: Callable[[], None] | None = scope.get("state", {}).get(_DROP)
    return drop


def has_body(scope: Scope) -> bool:
    """Whether all of a request's body has arrived. True under another HTTP server."""
    arrived: Callable[[], bool] | None = scope.get("state", {}).get(_HAS_BODY)
    return arrived is None or arrived()


class HttpConfig(uvicorn.Config):
    """uvicorn's settings, with this server's limits and admission control."""

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        admission: Admission,
        trusted_proxies: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        super().__init__(
            app,
            http=Connection,
            ws="none",
            log_config=None,  # `RequestLog` logs requests
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=limits.max_head_bytes,
            timeout_keep_alive=round(limits.idle_timeout_s) + 60,  # so that `Connection.check` acts first
            proxy_headers=True,
            forwarded_allow_ips=[*TrustedProxies(trusted_proxies).names],
            **settings,
        )
        self.limits = limits
        self.admission = admission
        self.proxies = TrustedProxies(trusted_proxies)
        self.crowd: Crowd[ClosableMember] = Crowd(
            limits.max_connections, limits.max_peer_connections, SPARE_CONNECTIONS
        )

    def peer_of(self, client: tuple[str, int] | None) -> str | None:
        """The address whose connections are counted together. None for a proxy, which has many clients."""
        address = UNIX if client is None else client[0]
        return None if address in self.proxies else shared_address(address)

    def admit(self, member: ClosableMember) -> bool:
        """Counts a new connection and closes silent ones for it. False: there are too many even to refuse it."""
        for silent in self.crowd.enter(member):
            self.admission.count("too_many_connections")
            silent.displace()
        if self.beyond > SPARE_CONNECTIONS:
            self.admission.count("too_many_connections")
            return False
        return True

    @property
    def beyond(self) -> int:
        """How many connections there are beyond the limit."""
        return len(self.crowd) - self.limits.max_connections


class Connection(H11Protocol):
    """uvicorn's connection, with a limit on the duration of each phase."""

    config: HttpConfig

    def __init__(self, config: HttpConfig, *arguments: Any, **more: Any) -> None:
        super().__init__(config, *arguments, **more)
        self.conn = BoundedH11(h11.SERVER, config.limits.max_head_bytes)
        self._limits = config.limits
        self._clock = loop_clock()
        self._phase: ConnectionPhase = "new"
        self._phase_began = self._clock.now()
        self._unsent = 0
        self._last_sent = self._phase_began
        self._lingering_bytes = 0
        self._is_crowded = False
        self._is_dropped = False

    @property
    def peer(self) -> str | None:
        """The address whose connections are counted together. None for a proxy."""
        return self.config.peer_of(self.client)

    @property
    def has_unread_data(self) -> bool:
        """Whether the client has sent something that waits in the kernel."""
        return has_unread_data(self.transport)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(cast(Any, LingeringTransport(transport, self)))
        if transport.get_extra_info("socket").family == socket.AF_UNIX:
            self.client = (UNIX, 0)
        elif self.client is not None:
            self.client = (plain_address(self.client[0]), self.client[1])
        is_admitted = self.config.admit(self)
        self._is_crowded = self.config.beyond > 0
        if not is_admitted:
            self.transport.abort()

    def displace(self) -> None:
        """Closes a connection that has no complete request, to make room for another one."""
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.config.crowd.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._phase != "linger":
            super().data_received(data)
            return
        self._lingering_bytes += len(data)
        if self._lingering_bytes > _LINGER_BYTES:
            self.transport.abort()

    def handle_events(self) -> None:
        scope = self.scope
        super().handle_events()
        if self.scope is not scope:  # a request has begun, and its task has not run yet
            state: dict[str, Any] = self.scope.setdefault("state", {})
            state.update({_CROWDED: self._is_crowded, _DROP: self.drop, _HAS_BODY: self._has_body})
        self._see_phase()

    def _has_body(self) -> bool:
        return self.conn.their_state is not h11.SEND_BODY

    def linger(self) -> bool:
        """Whether the connection may be closed now. If a request is still on its way, starts to drop its rest."""
        is_complete = self._has_body() and self.conn.their_state is not h11.ERROR and self._phase != "head"
        if is_complete or self._phase == "linger":
            return True
        self._enter("linger")
        self.flow.resume_reading()
        return False

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._see_phase()

    def _see_phase(self) -> None:
        if self._phase == "linger":
            return
        match self.conn.their_state:
            case h11.IDLE if self.conn.trailing_data[0]:
                phase: ConnectionPhase = "head"
            case h11.IDLE if self._phase == "new":
                phase = "new"
            case h11.IDLE:
                phase = "idle"
            case h11.SEND_BODY:
                phase = "body"
            case _:
                phase = "answer"
        if phase != self._phase:
            self._enter(phase)

    def _enter(self, phase: ConnectionPhase) -> None:
        self._phase, self._phase_began = phase, self._clock.now()
        if phase in _SERVED:
            self.config.crowd.hear(self)
        else:
            self.config.crowd.hush(self)

    def check(self) -> None:
        """Closes the connection if its client exceeded a time limit. The server calls it periodically."""
        now = self._clock.now()
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
                message = f"the headers did not arrive within {limits.head_timeout_s:g} s"
                self._end_with(ApiError(408, message, code="head_timeout"))
            case "body" if spent_s > limits.body_timeout_s + _BODY_GRACE_S:
                self.transport.abort()
            case "linger" if spent_s > min(_LINGER_S, limits.body_timeout_s):
                self.transport.abort()
            case _:
                pass

    def _check_reader(self, now: float) -> None:
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent:
            self._last_sent = now
        self._unsent = unsent
        # Below uvicorn's threshold, the rest may be small because there is nothing more to send.
        stuck = self.flow.write_paused or self._phase != "answer" or self.transport.is_closing()
        if stuck and now - self._last_sent > self._limits.slow_reader_timeout_s:
            self.drop()

    def drop(self) -> None:
        """Resets the connection of a client that does not read. This also frees the kernel's send buffer."""
        if not self._is_dropped:
            self._is_dropped = True
            self.config.admission.count("slow_reader")
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answers invalid HTTP in the error shape. uvicorn calls this while it handles h11's error."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if status == 431:
            most = self._limits.max_head_bytes
            self._end_with(ApiError(431, f"the headers are larger than {most} bytes", code="headers_too_large"))
        elif isinstance(error, TooManyChunksError):
            self._end_with(ApiError(413, str(error), code="too_many_chunks"))
        else:
            self._end_with(ApiError(400, "the request is not valid HTTP", code="invalid_http"))

    def _end_with(self, error: ApiError) -> None:
        """Sends `error`, unless a response has already begun, and closes the connection."""
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
            self.cycle.disconnected = True  # tell the reader of the body that it has ended
            self.cycle.message_event.set()
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """No warning: a request with an unsupported upgrade is served like any other."""


class LingeringTransport:
    """uvicorn's transport. If a request is still on its way, `close` ends the sending half alone at first."""

    def __init__(self, transport: Any, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection
        self.write = transport.write  # called for every token

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        if self._transport.is_closing():
            return
        if self._connection.linger():
            self._transport.close()
        elif self._transport.can_write_eof():  # not with TLS, whose client sees the answer's length
            self._transport.write_eof()
