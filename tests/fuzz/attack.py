"""Sends hostile requests to a real server over raw sockets, and sees what comes of it."""

import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from panacea_lab.bench.soak.http_caller import Address, Caller
from panacea_lab.bench.soak.server_watcher import ENGINE, SERVER, tree
from panacea_lab.bench.soak.soaked_server import StartedServer
from tests.fuzz.http_mutations import ELSEWHERE, Hostile
from tests.fuzz.values import CHAT, COMPLETIONS

LIMIT_S = 60.0
"""An answer that takes longer is a hang. Every answer is short; what takes time is a machine that others use."""
CANARY_EVERY = 100
WARM_UP = 0.25
"""Share of all requests after which memory is looked at for the first time."""
MIB = 2**20

_CANARIES: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"messages": [{"role": "user", "content": "How do I unblock a sink?"}], "temperature": 0, "max_tokens": 16}),
    (COMPLETIONS, {"prompt": "You need", "seed": 5, "temperature": 1, "max_tokens": 16, "preference": [1, 2, 3]}),
]


@dataclass
class Outcome:
    """What came of all of them."""

    statuses: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    """By endpoint."""
    kinds: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    parsed: int = 0
    """How many got past JSON parsing, as the answer tells."""
    slowest_s: float = 0.0
    problems: list[str] = field(default_factory=list[str])
    canaries: int = 0
    memory_mib: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """Of each process, after the warm-up and ten times from there to the end."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def sent(self) -> int:
        return sum(counter.total() for counter in self.statuses.values())

    def add(self, request: Hostile, status: str, parsed: bool, took_s: float) -> None:
        with self._lock:
            self.statuses.setdefault(request.path, Counter())[status] += 1
            self.kinds.setdefault(request.kind, Counter())[status] += 1
            self.parsed += parsed
            self.slowest_s = max(self.slowest_s, took_s)

    def look_at(self, pid: int) -> None:
        """Enters what the server's processes hold now."""
        with self._lock:
            for name, process in tree(pid).items():
                if name in (SERVER, ENGINE):  # others try out one schema each
                    self.memory_mib.setdefault(name, []).append(round(process.rss_bytes / MIB, 1))

    def complain(self, problem: str) -> None:
        with self._lock:
            self.problems.append(problem)

    def as_json(self) -> dict[str, Any]:
        return {
            "sent": self.sent,
            "past_json_parsing": round(self.parsed / max(1, self.sent), 3),
            "by_endpoint": {path: dict(sorted(counts.items())) for path, counts in sorted(self.statuses.items())},
            "by_kind": {kind: dict(sorted(counts.items())) for kind, counts in sorted(self.kinds.items())},
            "slowest_s": round(self.slowest_s, 2),
            "canaries": self.canaries,
            "memory_mib": self.memory_mib,
            "problems": self.problems,
        }


def attack(
    server: StartedServer, requests: Iterable[Hostile], count: int, key: str | None = None, clients: int = 4
) -> Outcome:
    """Sends all `count` requests from so many clients at once. The canaries between them have the key."""
    outcome = Outcome()
    address = Address.of(server.url, key)
    expected = [_canary(address, number) for number in range(len(_CANARIES))]
    pending = iter(requests)
    looks = {round(count * (WARM_UP + (1 - WARM_UP) * tenth / 10)) for tenth in range(10)}
    lock = threading.Lock()

    def taken() -> Iterator[Hostile]:
        while True:
            with lock:
                request = next(pending, None)
            if request is None or len(outcome.problems) > 50:
                return
            yield request

    def run() -> None:
        for request in taken():
            send(server.url, request, outcome)
            if request.number % CANARY_EVERY == 0:
                _check_canary(address, expected, outcome)
            if request.number in looks:
                outcome.look_at(server.pid)

    threads = [threading.Thread(target=run, name=f"attacker {number}") for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _check_canary(address, expected, outcome)
    outcome.look_at(server.pid)
    for line in server.log.read_text("utf-8", errors="replace").splitlines():
        if "Traceback" in line or "unexpected exception" in line:
            outcome.complain(f"the server's log says: {line[:300]}")
    return outcome


def send(url: str, request: Hostile, outcome: Outcome) -> None:
    """Sends one and enters what came back, and whether that may be."""
    begin = time.monotonic()
    try:
        answer = exchange(url, request)
    except TimeoutError:
        outcome.complain(f"no answer in {LIMIT_S:g} s to {shown(request)}")
        return
    took_s = time.monotonic() - begin
    status, parsed = _judge(request, answer, outcome)
    outcome.add(request, status, parsed, took_s)


def exchange(url: str, request: Hostile) -> bytes:
    """All that comes back until the server closes. Raises `TimeoutError` if it does not."""
    address = Address.of(url)
    end = time.monotonic() + LIMIT_S
    answer = bytearray()
    with socket.create_connection((address.host, address.port), timeout=LIMIT_S) as connection:
        try:
            connection.sendall(request.raw)
            if not request.complete:
                connection.shutdown(socket.SHUT_WR)  # nothing more comes
            while received := connection.recv(1 << 16):
                answer += received
                if time.monotonic() > end:
                    raise TimeoutError
        except (ConnectionResetError, BrokenPipeError):
            pass  # it closed before it had read all of a request that it refused
    return bytes(answer)


def _judge(request: Hostile, answer: bytes, outcome: Outcome) -> tuple[str, bool]:
    """The status, and whether the body got past JSON parsing."""
    while answer.startswith(b"HTTP/1.1 100 "):  # to whoever expects it, before the answer
        answer = answer.partition(b"\r\n\r\n")[2]
    match = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    if match is None:
        if request.complete:
            outcome.complain(f"no answer ({answer[:100]!r}) to {shown(request)}")
        return "closed", False
    status = int(match[1])
    content = answer.partition(b"\r\n\r\n")[2]
    failed_in_stream = request.path != ELSEWHERE and b'"type":"server_error"' in content
    # 503 with a time to try again: a schema's check was late or its process was killed.
    busy = status == 503 and b"\r\nretry-after: " in answer.partition(b"\r\n\r\n")[0].lower()
    if (status >= 500 and not busy) or failed_in_stream:
        outcome.complain(f"{status} {content[:200]!r} to {shown(request)}")
    if not request.complete:
        return str(status), False
    if status in (401, 413, 415, 429, 503):
        return str(status), False
    if status >= 400:
        try:
            error = json.loads(content)["error"]
        except (ValueError, KeyError, TypeError):
            outcome.complain(f"{status} without an error's shape, {content[:200]!r}, to {shown(request)}")
            return str(status), False
        return str(status), "not valid JSON" not in error["message"]
    return str(status), True


def _canary(address: Address, number: int) -> list[str]:
    path, body = _CANARIES[number]
    with closing(Caller(address)) as caller:
        reply = caller.ask("POST", path, json.dumps({**body, "logprobs": path == CHAT or 0}).encode())
    assert reply.status == 200, reply.body
    logprobs = reply.json()["choices"][0]["logprobs"]
    return [entry["token"] for entry in logprobs["content"]] if path == CHAT else logprobs["tokens"]


def _check_canary(address: Address, expected: list[list[str]], outcome: Outcome) -> None:
    for number, tokens in enumerate(expected):
        now = _canary(address, number)
        outcome.canaries += 1
        if now != tokens:
            outcome.complain(f"canary {number} got other tokens: {now} instead of {tokens}")


def shown(request: Hostile) -> str:
    """A request as a report may show it."""
    return f"request {request.number} ({request.kind}): {request.raw[:600]!r}"
