"""Canaries: the same few requests again and again. Their tokens must never change, and their times show drift."""

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from panacea_lab.bench.measurement import BenchError
from panacea_lab.bench.soak.http_caller import Address, Caller, CallError, Stop
from panacea_lab.bench.soak.soak_requests import CHAT, SoakVocabulary

CLEAR_GAP = 1e-3
"""Between the logits of the two best tokens, everywhere in a greedy canary's answer. A CPU's matrix products change
their last bits with the number of rows, so that of two tokens closer than some 1e-4 either may win."""

TokenTexts = tuple[str, ...]


@dataclass(frozen=True)
class TimedAnswer:
    """A canary's answer and its times."""

    at_s: float
    """On the monotonic clock."""
    tokens: TokenTexts
    gap: float
    """Least difference between the log probabilities of the two best tokens."""
    first_s: float
    total_s: float


@dataclass(frozen=True)
class CanaryTimes:
    """One canary's times, and the time of a fixed piece of work without the server."""

    at_s: float
    canary: str
    first_s: float
    total_s: float
    machine_s: float
    """A fixed piece of work: it shows whether the machine itself got slower."""


class Canaries:
    """Greedy and seeded requests, and what they answered at first."""

    def __init__(self, address: Address, vocabulary: SoakVocabulary, pause_s: float) -> None:
        """Sends each request a first time. Raises `BenchError` if the answers already differ."""
        self.samples: list[CanaryTimes] = []
        self.problems: list[str] = []
        self.asked = 0
        self.changed = 0
        self._caller = Caller(address)
        self._pause_s = pause_s
        self._stop = Stop()
        self._thread = threading.Thread(target=self._run, name="canaries")
        self._bodies = _bodies(vocabulary)
        try:
            self._expected = {name: self._reference(name) for name in list(self._bodies)}
        except CallError as error:
            raise BenchError(f"a first request failed: {error}") from None
        finally:
            self._caller.close()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.now()
        self._thread.join()
        self._caller.close()

    def _reference(self, name: str) -> TokenTexts:
        for body in self._bodies[name]:
            first, second = (timed(self._caller, body) for _ in range(2))
            if first.tokens != second.tokens:
                raise BenchError(f"the {name} request has two answers before there is any load")
            if first.gap > CLEAR_GAP or "greedy" not in name:
                self._bodies[name] = [body]
                return first.tokens
        raise BenchError("no prompt's greedy answer is free of near ties: no canary can be trusted")

    def _run(self) -> None:
        while not self._stop.wait(self._pause_s):
            machine_s = fixed_work_s()
            for name, (body, *_) in self._bodies.items():
                self._ask(name, body, machine_s)

    def _ask(self, name: str, body: bytes, machine_s: float) -> None:
        self.asked += 1
        try:
            answer = timed(self._caller, body)
        except (CallError, KeyError, TypeError, ValueError) as error:
            self._complain(f"the {name} request failed: {error}")
            return
        if answer.tokens != self._expected[name]:
            self.changed += 1
            self._complain(f"the {name} request got other tokens: {answer.tokens} instead of {self._expected[name]}")
        self.samples.append(CanaryTimes(answer.at_s, name, answer.first_s, answer.total_s, machine_s))

    def _complain(self, problem: str) -> None:
        if len(self.problems) < 10:
            self.problems.append(problem)


def timed(caller: Caller, body: bytes) -> TimedAnswer:
    """One canary's answer. Raises `CallError`."""
    begin = time.monotonic()
    first = None
    tokens: list[str] = []
    gap = float("inf")
    for data in caller.stream(CHAT, body):
        if data == b"[DONE]":
            continue
        event = json.loads(data)
        if "error" in event:
            raise CallError(f"the stream ended with an error: {data[:200]!r}")
        for choice in event["choices"]:
            for entry in (choice["logprobs"] or {"content": []})["content"]:
                first = first or time.monotonic()
                tokens.append(entry["token"])
                best = [each["logprob"] for each in entry["top_logprobs"]]
                gap = min(gap, best[0] - best[1])
    end = time.monotonic()
    if first is None:
        raise CallError("a canary got no tokens")
    return TimedAnswer(begin, tuple(tokens), gap, first - begin, end - begin)


def fixed_work_s() -> float:
    """Seconds of some 50 ms of work, outside of Python's lock.

    Much less would be done before a busy machine's scheduler gives the core to anyone else.
    """
    begin = time.perf_counter()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000)
    return time.perf_counter() - begin


def _bodies(vocabulary: SoakVocabulary) -> dict[str, Sequence[bytes]]:
    """Candidates for each canary: the first one whose answer is clear is taken."""
    weights = {name: 1.0 / (1 + number) for number, name in enumerate(vocabulary.dimensions)}
    steered: dict[str, Any] = {"preference": weights} if weights else {}

    def bodies(**fields: Any) -> list[bytes]:
        common = {"stream": True, "logprobs": True, "top_logprobs": 2, "max_tokens": 32, "ignore_eos": True}
        return [
            json.dumps({"messages": [{"role": "user", "content": prompt}], **common, **fields}).encode()
            for prompt in vocabulary.prompts
        ]

    return {
        "greedy": bodies(temperature=0, **steered),
        "greedy base": bodies(temperature=0, model=f"{vocabulary.models[0]}:base" if weights else vocabulary.models[0]),
        "seeded": bodies(temperature=1, seed=20, **steered),
        "seeded, nucleus": bodies(temperature=0.8, seed=-3, top_p=0.9, top_k=20, **steered),
    }
