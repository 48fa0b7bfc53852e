"""A server that does what it is told, byte by byte, and most of it is wrong."""

import socket
import struct
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Pause:
    """Send nothing for a while."""

    seconds: float


class Reset:
    """End the connection as a crash does."""


class Hang:
    """Send nothing more until the client goes away."""


class Repeat:
    """Send the same until the client goes away."""

    def __init__(self, data: bytes) -> None:
        self.data = data


Reply = Sequence[bytes | Pause | Reset | Hang | Repeat]
"""What one connection gets once its request has been read. The connection ends behind it."""


@dataclass
class Hostile:
    """The server, and what it saw."""

    port: int
    requests: list[bytes] = field(default_factory=list[bytes])
    """Each request as it came; there is one a connection."""
    times: list[float] = field(default_factory=list[float])
    """When each request was read, in seconds of the monotonic clock."""
    gone: int = 0
    """Clients that went away from a reply that waited for just that."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def hostile(*replies: Reply) -> Generator[Hostile]:
    """Answers each connection with the next reply, and all further ones with the last."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Hostile(listener.getsockname()[1])
    threads: list[threading.Thread] = []
    lock = threading.Lock()

    def handle(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(10)
            request = _read_request(connection)
            with lock:
                reply = replies[min(len(server.requests), len(replies) - 1)]
                server.requests.append(request)
                server.times.append(time.monotonic())
            for step in reply:
                _do(connection, step, server)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=handle, args=(connection,)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield server
    finally:
        # Closing alone would not wake `accept`.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for thread in threads:
            thread.join()


def _do(connection: socket.socket, step: bytes | Pause | Reset | Hang | Repeat, server: Hostile) -> None:
    match step:
        case bytes():
            connection.sendall(step)
        case Pause():
            time.sleep(step.seconds)
        case Reset():
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        case Hang():
            with suppress(ConnectionError):
                assert connection.recv(1) == b""
            server.gone += 1
        case Repeat():
            with suppress(ConnectionError):
                while True:
                    connection.sendall(step.data)
            server.gone += 1


def _read_request(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        received += _some(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while len(body) < length:
        body += _some(connection)
    return head + b"\r\n\r\n" + body


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the client left in its request")
    return data


def answer(body: bytes, status: str = "200 OK", kind: str = "application/json", headers: str = "") -> bytes:
    """A whole and well-formed HTTP answer."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
    return f"{head}{headers}\r\n".encode() + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: r-1\r\n\r\n"
"""Its body ends with the connection, so that a cut is no error of HTTP's."""
CHUNKED_HEAD = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n")
