"""A client with a key of its own beside an attack: whether its answers stay right, and how long it waits for them."""

import json
import threading
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from panacea_lab.bench.soak.http_caller import Address, Caller, CallError
from tests.fuzz.values import CHAT

_BODY: dict[str, Any] = {
    "messages": [{"role": "user", "content": "How do I unblock a sink?"}],
    "temperature": 0,
    "max_tokens": 16,
    "stream": True,
    "logprobs": True,
}


@dataclass
class Neighbour:
    """Its answers."""

    times_s: list[float] = field(default_factory=list[float])
    """From the request to the last token."""
    gaps_s: list[float] = field(default_factory=list[float])
    """The longest time between two tokens of each answer."""
    wrong: int = 0
    refused: list[str] = field(default_factory=list[str])

    @property
    def p50_s(self) -> float:
        return median(self.times_s) if self.times_s else float("inf")

    def report(self) -> str:
        gap = max(self.gaps_s, default=0.0)
        return (
            f"another key beside it: {len(self.times_s)} answers, p50 {self.p50_s:.2f} s, "
            f"slowest {max(self.times_s, default=0.0):.2f} s, longest gap in a stream {gap:.2f} s, "
            f"{self.wrong} wrong, {len(self.refused)} refused"
        )

    def problems(self) -> list[str]:
        """Wrong answers, refusals, and no answer at all."""
        found = [f"{self.wrong} answers of another key were wrong"] if self.wrong else []
        found += [f"another key was refused: {said}" for said in self.refused[:3]]
        return found if self.times_s else [*found, "another key got no answer"]


@contextmanager
def neighbour(url: str, key: str) -> Generator[Neighbour]:
    """Asks the same question again and again while the block runs, and compares with the answer from before it."""
    seen = Neighbour()
    stop = threading.Event()
    with closing(Caller(Address.of(url, key), timeout_s=120)) as caller:
        expected, _, _ = _answer(caller)

        def run() -> None:
            while not stop.is_set():
                begin = time.monotonic()
                try:
                    tokens, gap_s, total_s = _answer(caller)
                except CallError as error:
                    seen.refused.append(str(error))
                    stop.wait(max(0.0, 0.2 - (time.monotonic() - begin)))
                    continue
                seen.times_s.append(total_s)
                seen.gaps_s.append(gap_s)
                seen.wrong += tokens != expected

        thread = threading.Thread(target=run, name="neighbour")
        thread.start()
        try:
            yield seen
        finally:
            stop.set()
            thread.join()


def _answer(caller: Caller) -> tuple[list[str], float, float]:
    """The tokens, the longest gap between two of them, and the time from the request to the last one. In seconds."""
    begin = last = time.monotonic()
    tokens: list[str] = []
    gap_s = 0.0
    for data in caller.stream(CHAT, json.dumps(_BODY).encode()):
        now = time.monotonic()
        if tokens:
            gap_s = max(gap_s, now - last)
        last = now
        if data != b"[DONE]":
            chunk = json.loads(data)
            if "error" in chunk:
                raise CallError(chunk["error"]["message"])
            for choice in chunk["choices"]:
                tokens += [entry["token"] for entry in (choice["logprobs"] or {}).get("content") or ()]
    return tokens, gap_s, time.monotonic() - begin
