"""The load: clients that send one request after the other, and a tally of the results."""

import json
import os
import threading
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from panacea_lab.bench.soak.http_caller import Address, Caller, CallError, Stop
from panacea_lab.bench.soak.soak_requests import CHAT, LONG, SoakRequest, SoakRequests, SoakVocabulary

SHOWN_FAILURES = 20


@dataclass
class SoakTally:
    """Counts of all requests and their results. All clients write into it."""

    asked: Counter[str] = field(default_factory=Counter[str])
    """By kind."""
    statuses: Counter[int] = field(default_factory=Counter[int])
    failures: list[str] = field(default_factory=list[str])
    """The first ones, in words."""
    failed: int = 0
    tokens: int = 0
    """Generated, as the answers say."""
    cached_tokens: int = 0
    """Of prompts, found in the prefix cache."""
    refused: int = 0
    """Answered 429: the server was full."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def requests(self) -> int:
        return self.asked.total()

    def count(self, ask: SoakRequest, status: int) -> None:
        with self._lock:
            self.asked[ask.kind] += 1
            self.statuses[status] += 1
            self.refused += status == 429

    def use(self, usage: dict[str, Any]) -> None:
        with self._lock:
            self.tokens += usage["completion_tokens"]
            self.cached_tokens += (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)

    def fail(self, ask: SoakRequest, reason: str) -> None:
        with self._lock:
            self.failed += 1
            if len(self.failures) < SHOWN_FAILURES:
                self.failures.append(f"{ask.kind} {ask.path}: {reason}; asked {ask.body[:300]!r}")

    def as_json(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "by_kind": dict(sorted(self.asked.items())),
            "by_status": {str(status): count for status, count in sorted(self.statuses.items())},
            "failed": self.failed,
            "failures": self.failures,
            "generated_tokens": self.tokens,
            "cached_tokens": self.cached_tokens,
        }


class SoakLoad:
    """A number of clients that send requests from `start` to `stop`."""

    def __init__(self, address: Address, vocabulary: SoakVocabulary, clients: int, seed: str) -> None:
        self.tally = SoakTally()
        self._stop = Stop()
        self._clients = [
            threading.Thread(
                target=self._run,
                args=[Caller(address), SoakRequests(vocabulary, f"{seed} {number}")],
                name=f"client {number}",
            )
            for number in range(clients)
        ]

    def start(self) -> None:
        for client in self._clients:
            client.start()

    def stop(self) -> None:
        """Returns when every client has its last answer."""
        self._stop.now()
        for client in self._clients:
            client.join()

    def _run(self, caller: Caller, asks: SoakRequests) -> None:
        for number in range(1 << 62):
            if self._stop:
                break
            ask = asks.next()
            try:
                self._ask(caller, ask)
            except CallError as error:
                self.tally.fail(ask, str(error))
                self._stop.wait(0.2)  # so that a dead server does not get a thousand requests a second
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                self.tally.fail(ask, f"the answer has an unexpected shape: {type(error).__name__}: {error}")
                caller.close()
            if number % 10 == 9:
                caller.close()  # connections come and go
        caller.close()

    def _ask(self, caller: Caller, ask: SoakRequest) -> None:
        match ask.kind:
            case "disconnect":
                self._leave(caller, ask)
            case "stream":
                self._read_stream(caller, ask)
            case _:
                self._read_whole(caller, ask)

    def _leave(self, caller: Caller, ask: SoakRequest) -> None:
        if not ask.streams:
            caller.give_up_on(ask.path, ask.body, ask.leaves_after / 100)
        else:
            for number, _ in enumerate(caller.stream(ask.path, ask.body), 1):
                if number >= ask.leaves_after:
                    break
            caller.hang_up()
        self.tally.count(ask, 0)

    def _read_whole(self, caller: Caller, ask: SoakRequest) -> None:
        reply = caller.ask("POST", ask.path, ask.body)
        self.tally.count(ask, reply.status)
        answer = reply.json()
        if reply.status == 429:
            self._stop.wait(0.2)
        elif ask.kind == "bad":
            if not 400 <= reply.status < 500 or not answer["error"]["message"]:
                self.tally.fail(ask, f"a bad request got status {reply.status}")
        elif reply.status != 200:
            self.tally.fail(ask, f"status {reply.status}: {reply.body[:200]!r}")
        else:
            self._check_choices(ask, {choice["index"]: choice["finish_reason"] for choice in answer["choices"]})
            self.tally.use(answer["usage"])

    def _read_stream(self, caller: Caller, ask: SoakRequest) -> None:
        finished: dict[int, str | None] = {}
        last = b""
        for last in caller.stream(ask.path, ask.body):
            if last == b"[DONE]":
                continue  # to the end of the body, so that the connection can be used again
            event = json.loads(last)
            if "error" in event:
                raise CallError(f"the stream ended with an error: {last[:200]!r}")
            for choice in event["choices"]:
                finished[choice["index"]] = choice["finish_reason"] or finished.get(choice["index"])
            if event.get("usage"):
                self.tally.use(event["usage"])
        self.tally.count(ask, 200)
        if last != b"[DONE]":
            self.tally.fail(ask, "a stream ended before the answer was complete")
        self._check_choices(ask, finished)

    def _check_choices(self, ask: SoakRequest, finished: dict[int, str | None]) -> None:
        if sorted(finished) != list(range(ask.choices)) or not set(finished.values()) <= {"stop", "length"}:
            self.tally.fail(ask, f"{ask.choices} answers were asked for, and these ended: {finished}")


def fill_thread_pool(address: Address) -> None:
    """Makes the server start all threads of its pool for long prompts, which it keeps."""
    body = json.dumps(LONG).encode()

    def ask() -> None:
        with closing(Caller(address)) as caller:
            caller.ask("POST", CHAT, body)

    threads = [threading.Thread(target=ask) for _ in range(min(32, (os.cpu_count() or 1) + 4))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
