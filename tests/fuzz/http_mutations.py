"""Requests that are wrong in how HTTP carries them."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

ELSEWHERE = "elsewhere"
"""Where a request goes whose path is wrong."""


@dataclass(frozen=True)
class Hostile:
    """One request as bytes."""

    number: int
    kind: str
    path: str
    head: bytes
    body: bytes
    complete: bool = True
    """Whether the server can know where it ends. One that is not need not be answered, but must not hang either."""

    @property
    def raw(self) -> bytes:
        return self.head + self.body


def plain(number: int, kind: str, path: str, body: bytes) -> Hostile:
    """A body in proper HTTP."""
    return Hostile(number, kind, path, _head(path, f"Content-Length: {len(body)}"), body)


def with_key(request: Hostile, key: str) -> Hostile:
    """The request with an API key. A request without a request line stays as it is."""
    line, separator, rest = request.head.partition(b"\r\n")
    return (
        replace(request, head=line + separator + f"Authorization: Bearer {key}\r\n".encode("latin-1") + rest)
        if rest
        else request
    )


def _head(path: str, *headers: str, content_type: str = "application/json", method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Type: {content_type}", "Connection: close"]
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1")


def _content_type(draw: random.Random, number: int, path: str, body: bytes) -> Hostile:
    kinds = [
        "text/plain",
        "",
        "application/jsonp",
        "multipart/form-data; boundary=a",
        "application/x-www-form-urlencoded",
    ]
    kinds += ["application/json; charset=utf-16", "APPLICATION/JSON ;a=b", "a" * 3000, "application/json, text/html"]
    head = _head(path, f"Content-Length: {len(body)}", content_type=draw.choice(kinds))
    return Hostile(number, "content type", path, head, body)


def _chunked(draw: random.Random, number: int, path: str, body: bytes) -> Hostile:
    chunks: list[bytes] = []
    while body:
        size = draw.choice((1, 7, 100, 100_000))
        chunks.append(b"%x\r\n%s\r\n" % (len(body[:size]), body[:size]))
        body = body[size:]
        if len(chunks) > 2000:
            chunks.append(b"%x\r\n%s\r\n" % (len(body), body) if body else b"")
            break
    return Hostile(number, "chunked", path, _head(path, "Transfer-Encoding: chunked"), b"".join(chunks) + b"0\r\n\r\n")


def _bad_chunks(draw: random.Random, number: int, path: str, body: bytes) -> Hostile:
    encodings = [
        b"%x\r\n%s\r\n" % (len(body) + 9, body),
        b"-1\r\n" + body,
        b"zz\r\n" + body,
        b"fffffffffffffffff\r\n" + body,
    ]
    encodings += [b"%x;%s\r\n%s\r\n0\r\n\r\n" % (len(body), b"a" * 3000, body), body, b"0\r\n\r\n", b""]
    head = _head(path, "Transfer-Encoding: chunked")
    return Hostile(number, "bad chunks", path, head, draw.choice(encodings), complete=False)


def _length(draw: random.Random, number: int, path: str, body: bytes) -> Hostile:
    shorter = draw.randrange(len(body) + 1)
    lengths = [str(shorter), str(len(body) + 100), "-1", "1e3", "0x10", "", " ", "9" * 40, str(5 << 20), "+5", "\u00b2"]
    head = _head(path, f"Content-Length: {draw.choice(lengths)}")
    return Hostile(number, "length", path, head, body, complete=False)


def _both_lengths(draw: random.Random, number: int, path: str, body: bytes) -> Hostile:
    lengths: list[tuple[str, ...]] = [("Transfer-Encoding: chunked", f"Content-Length: {len(body)}")]
    lengths += [(f"Content-Length: {len(body)}", f"Content-Length: {len(body) + 1}"), (), ("Transfer-Encoding: gzip",)]
    head = _head(path, *draw.choice(lengths))
    return Hostile(number, "two lengths", path, head, body, complete=False)


def _header(draw: random.Random, number: int, path: str, body: bytes) -> Hostile:
    headers = [
        "Authorization: Bearer " + "a" * 5000,
        "X-Request-Id: " + "\u00ff" * 100,
        "X-Request-Id: a b;\tc",
        "Expect: 100-continue",
    ]
    headers += [
        "Content-Encoding: gzip",
        "Accept: nothing/*",
        "Cookie: " + "a=b; " * 900,
        "X: " + "y" * 70_000,
        ": a",
        "a b: c",
    ]
    headers += [
        "Upgrade: websocket",
        "Upgrade: h2c",
        "Range: bytes=0-",
        "X-Forwarded-Host: evil",
        "Origin: null",
        "Host: evil",
    ]
    head = _head(path, f"Content-Length: {len(body)}", draw.choice(headers))
    return Hostile(number, "header", path, head, body, complete=False)


def _line(draw: random.Random, number: int, path: str, body: bytes) -> Hostile:
    paths = [
        path + "/",
        "/" + path,
        path + "?" + "a=b&" * 500,
        path + "#a",
        "/v1/../metrics",
        path.upper(),
        "*",
        "//evil/",
        "/%00",
    ]
    paths += [
        "/%ff%fe",
        "/" + "a" * 3000,
        "http://evil" + path,
        path + ";a",
        "/v1/models/%2e%2e",
        "/docs",
        "/openapi.json",
        "/v1",
    ]
    methods = ["POST", "POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "NONSENSE", "post"]
    method = draw.choice(methods)
    head = _head(draw.choice(paths), f"Content-Length: {len(body)}", method=method)
    # What the server answers to a method that it does not know, and to HEAD, is for its HTTP library to say.
    return Hostile(number, "request line", ELSEWHERE, head, body, complete=False)


def _half(draw: random.Random, number: int, path: str, body: bytes) -> Hostile:
    whole = plain(number, "half", path, body).raw
    return Hostile(number, "half", path, whole[: draw.randrange(1, len(whole) + 1)], b"", complete=False)


HTTP_MUTATIONS: dict[str, Callable[[random.Random, int, str, bytes], Hostile]] = {
    "content type": _content_type,
    "chunked": _chunked,
    "bad chunks": _bad_chunks,
    "length": _length,
    "two lengths": _both_lengths,
    "header": _header,
    "request line": _line,
    "half": _half,
}
