"""Asks for `/health` all the time, from a process of its own: the attackers' threads must not delay the watch.

`python -m tests.fuzz.health_watch URL` asks until its standard input ends, and prints how long each answer took.
"""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import quantiles
from urllib.parse import urlsplit

INTERVAL_S = 0.02
LIMIT_S = 1.0
"""No answer of `/health` may take longer."""
GIVE_UP_S = 30.0


@dataclass
class HealthWatch:
    """How long each answer took, and what was no answer."""

    times_s: list[float] = field(default_factory=list[float])
    failures: list[str] = field(default_factory=list[str])

    @property
    def p50_s(self) -> float:
        return self._percentile(50)

    @property
    def p99_s(self) -> float:
        return self._percentile(99)

    @property
    def slowest_s(self) -> float:
        return max(self.times_s, default=0.0)

    def _percentile(self, percent: int) -> float:
        if len(self.times_s) < 2:
            return self.slowest_s
        return quantiles(self.times_s, n=100, method="inclusive")[percent - 1]

    def report(self) -> str:
        return (
            f"/health: {len(self.times_s)} answers, p50 {1000 * self.p50_s:.0f} ms, p99 {1000 * self.p99_s:.0f} ms, "
            f"slowest {1000 * self.slowest_s:.0f} ms"
        )

    def problems(self) -> list[str]:
        """What must not be: an answer above the limit, no answer, or too few of them to say anything."""
        found = [f"/health: {failure}" for failure in self.failures[:3]]
        if self.slowest_s > LIMIT_S:
            found.append(f"an answer of /health took {self.slowest_s:.2f} s, more than {LIMIT_S:g} s")
        if len(self.times_s) < 20:
            found.append(f"/health was answered {len(self.times_s)} times: too few to judge")
        return found


@contextmanager
def watched(url: str) -> Generator[HealthWatch]:
    """Watches a server. What is yielded is filled at the end of the block."""
    watch = HealthWatch()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.health_watch", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        yield watch
    finally:
        said, _ = process.communicate(timeout=2 * GIVE_UP_S)
        if said:
            content = json.loads(said)
            watch.times_s, watch.failures = content["times_s"], content["failures"]
        else:
            watch.failures = ["the watch ended early"]


def ask(host: str, port: int) -> float:
    """Seconds until `/health` is answered on a new connection. Raises `OSError` or `HTTPException`."""
    begin = time.monotonic()
    connection = http.client.HTTPConnection(host, port, timeout=GIVE_UP_S)
    try:
        connection.request("GET", "/health")
        reply = connection.getresponse()
        reply.read()
    finally:
        connection.close()
    if reply.status != http.client.OK:
        raise OSError(f"status {reply.status}")
    return time.monotonic() - begin


def main() -> None:
    parts = urlsplit(sys.argv[1])
    assert parts.hostname is not None
    assert parts.port is not None
    ended = threading.Event()

    def read_to_the_end() -> None:
        sys.stdin.buffer.read()
        ended.set()

    threading.Thread(target=read_to_the_end, daemon=True).start()
    print(flush=True)
    watch = HealthWatch()
    while not ended.wait(INTERVAL_S):
        try:
            watch.times_s.append(ask(parts.hostname, parts.port))
        except (OSError, http.client.HTTPException) as error:
            watch.failures.append(f"{type(error).__name__}: {error}")
    print(json.dumps({"times_s": watch.times_s, "failures": watch.failures}))


if __name__ == "__main__":
    main()
