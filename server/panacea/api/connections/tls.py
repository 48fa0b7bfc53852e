"""HTTPS: the server's certificate, and connections that must finish a handshake before they are served."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

from uvicorn.protocols.utils import get_remote_addr
from uvicorn.server import ServerState

from panacea.api.connections.connection import Connection, HttpConfig
from panacea.api.connections.crowd import has_unread_data
from panacea.errors import ConfigError

_GOODBYE_S = 1.0
"""How long a client may take to confirm the end of a connection."""


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """The settings for TLS 1.2 and later with this certificate. None for None.

    `certificate` is a PEM file with the server's certificate first and then those of its issuers. Raises `ConfigError`.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("--tls-certificate and --tls-key belong together; give both or none")
    for option, path in (("--tls-certificate", certificate), ("--tls-key", key)):
        try:
            path.read_bytes()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(f"{option} {path} cannot be read: {reason}") from None
    is_encrypted = False

    def refuse() -> str:
        nonlocal is_encrypted
        is_encrypted = True
        return ""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=refuse)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(_problem(certificate, key, error, is_encrypted=is_encrypted)) from None
    return context


def _problem(certificate: Path, key: Path, error: Exception, *, is_encrypted: bool) -> str:
    if is_encrypted:
        return f"--tls-key {key} is encrypted; write it without a password: openssl pkey -in FILE -out NEW-FILE"
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return f"--tls-key {key} is not the key of --tls-certificate {certificate}; give the two that belong together"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
    except ssl.SSLError:
        return f"--tls-certificate {certificate} is not a PEM certificate; it must hold BEGIN CERTIFICATE"
    return f"--tls-key {key} is not a PEM private key; it must hold BEGIN PRIVATE KEY"


class TlsConfig(HttpConfig):
    """The settings of a server whose connections are encrypted."""

    def __init__(self, context: ssl.SSLContext, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.context = context
        self.http = TlsHandshake


class TlsHandshake(asyncio.Protocol):
    """A client that has connected. It becomes a `Connection` once the handshake is done.

    Until then it counts as a silent connection: it makes room for others, and has `head_timeout_s` to finish.
    """

    def __init__(
        self, config: TlsConfig, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None
    ) -> None:
        self._config = config
        self._make_connection = lambda: Connection(config, server_state, app_state, asyncio.get_running_loop())
        self._connection: Connection | None = None
        self._early = b""
        self._is_lost = False
        self._transport: asyncio.Transport | None = None
        self._peer: str | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def peer(self) -> str | None:
        """The address whose connections are counted together. None for a proxy."""
        return self._peer

    @property
    def has_unread_data(self) -> bool:
        """Whether the client has sent something that waits in the kernel."""
        return self._transport is not None and has_unread_data(self._transport)

    def displace(self) -> None:
        """Closes the connection to make room for another one."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()  # the first bytes belong to the handshake
        self._transport = transport
        self._peer = self._config.peer_of(get_remote_addr(transport))
        if self._config.admit(self):
            self._task = asyncio.get_running_loop().create_task(self._shake_hands(transport))
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._connection is None:
            self._early += data  # sent together with the end of the handshake
        else:
            self._connection.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._config.crowd.leave(self)
        if self._connection is not None:
            self._connection.connection_lost(exc)

    async def _shake_hands(self, transport: asyncio.Transport) -> None:
        try:
            encrypted = await asyncio.get_running_loop().start_tls(
                transport,
                self,
                self._config.context,
                server_side=True,
                ssl_handshake_timeout=self._config.limits.head_timeout_s,
                ssl_shutdown_timeout=_GOODBYE_S,
            )
        except OSError:  # no TLS, no common version, a certificate that the client does not accept, too slow
            transport.abort()
            return
        finally:
            self._config.crowd.leave(self)
        if encrypted is None or self._is_lost:
            return
        self._connection = self._make_connection()  # type: ignore[no-untyped-call]
        encrypted.set_protocol(self._connection)
        self._connection.connection_made(encrypted)
        if self._early:
            self._connection.data_received(self._early)
