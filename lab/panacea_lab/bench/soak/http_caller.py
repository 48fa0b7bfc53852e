"""HTTP requests with the standard library alone, so that the server is measured and not a client."""

import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from panacea_lab.bench.measurement import BenchError

Made = TypeVar("Made")

TIMEOUT_S = 60.0
"""A server that sends nothing for this long is considered stuck."""


class CallError(Exception):
    """The connection failed, or the response was invalid."""


@dataclass(frozen=True)
class Address:
    """Where the server is, and the key that it asks for."""

    host: str
    port: int
    key: str | None = None

    @classmethod
    def of(cls, url: str, key: str | None = None) -> "Address":
        """Raises `BenchError` for anything but http://host:port."""
        parts = urlsplit(url)
        try:
            port = parts.port or 80
        except ValueError:
            port = 0
        if parts.scheme != "http" or not parts.hostname or not port or parts.path.strip("/"):
            raise BenchError(f"--url must look like http://127.0.0.1:8000, not {url!r}")
        return cls(parts.hostname, port, key)


@dataclass(frozen=True)
class HttpReply:
    """A whole answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Raises `CallError` if the body is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise CallError("the body is not JSON") from None


class Caller:
    """One client with one connection, which it keeps between requests. Used by one thread.

    Every method raises `CallError` when the connection fails.
    """

    def __init__(self, address: Address, timeout_s: float = TIMEOUT_S) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None
        self._used = 0.0

    def ask(self, method: str, path: str, body: bytes | None = None) -> HttpReply:
        """The whole answer."""
        response = self._begin(method, path, body)
        return HttpReply(response.status, self._guarded(response.read))

    def stream(self, path: str, body: bytes) -> Iterator[bytes]:
        """The data of each event of a stream as it comes. Raises `CallError` for any status but 200, too."""
        response = self._begin("POST", path, body)
        if response.status != 200:
            raise CallError(f"status {response.status}: {self._guarded(response.read)[:200]!r}")
        while line := self._guarded(response.readline):
            if line.startswith(b"data: "):
                yield line[6:].strip()

    def give_up_on(self, path: str, body: bytes, after_s: float) -> None:
        """Sends a request, waits for a while, and disconnects."""
        try:
            self._send("POST", path, body)
        except (OSError, http.client.HTTPException) as error:
            raise CallError(f"{type(error).__name__}: {error}") from None
        time.sleep(after_s)
        self.hang_up()

    def hang_up(self) -> None:
        """Resets the connection at once, like a killed client."""
        if self._connection is not None and self._connection.sock is not None:
            self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _begin(self, method: str, path: str, body: bytes | None) -> http.client.HTTPResponse:
        def exchange() -> http.client.HTTPResponse:
            return self._send(method, path, body).getresponse()

        response = self._guarded(exchange)
        self._used = time.monotonic()
        return response

    def _send(self, method: str, path: str, body: bytes | None) -> http.client.HTTPConnection:
        if self._connection is not None and time.monotonic() - self._used > 1:
            self.close()  # the server closes connections that are idle, and may be doing so now
        if self._connection is None:
            self._connection = http.client.HTTPConnection(
                self._address.host, self._address.port, timeout=self._timeout_s
            )
        headers = {"content-type": "application/json"} if body is not None else {}
        if self._address.key is not None:
            headers["authorization"] = f"Bearer {self._address.key}"
        self._connection.request(method, path, body, headers)
        return self._connection

    def _guarded(self, action: Callable[[], Made]) -> Made:
        try:
            return action()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            said = "no answer in time" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
            raise CallError(said) from None


class Stop:
    """A signal for threads to end. The first thread that fails sets it for the others."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def now(self) -> None:
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Waits up to `seconds`; returns whether it is time to stop."""
        return self._event.wait(seconds)

    def __bool__(self) -> bool:
        return self._event.is_set()
