"""Many clients that send as fast as they are answered, in a process of their own.

`python -m tests.fuzz.flooders URL KEY CLIENTS SECONDS WHAT` prints the statuses as JSON. A client does not wait after a
refusal: it has a bug, or it means harm.
"""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.fuzz.http_mutations import plain, with_key
from tests.fuzz.structure_bombs import BOMBS
from tests.fuzz.values import CHAT, SCHEMAS, TOKENIZE, VALID

ANSWER_LIMIT_S = 120.0
_WORDS = "How do I repair a bicycle with a hammer, a spoon and two forks? "


@dataclass
class Flood:
    """What the flooders got."""

    statuses: Counter[str] = field(default_factory=Counter[str])
    seconds: float = 0.0

    def report(self) -> str:
        counts = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        return f"flood: {self.statuses.total()} requests in {self.seconds:.0f} s: {counts}"

    def problems(self, allowed: frozenset[str]) -> list[str]:
        """Statuses that must not be."""
        return [f"the flood got {count} x {status}" for status, count in self.statuses.items() if status not in allowed]


@contextmanager
def flooding(url: str, key: str, clients: int, seconds: float, what: str) -> Generator[Flood]:
    """Floods a server while the block runs. Waits for the flooders at its end; then the flood is filled."""
    flood = Flood()
    command = [sys.executable, "-m", "tests.fuzz.flooders", url, key, str(clients), str(seconds), what]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        yield flood
    finally:
        said, _ = process.communicate(timeout=seconds + 2 * ANSWER_LIMIT_S)
        content = json.loads(said)
        flood.statuses, flood.seconds = Counter(content["statuses"]), content["seconds"]


def _ordinary(draw: random.Random) -> tuple[str, bytes]:
    """A request that a real client could send: short and long answers, many choices, schemas, long texts."""
    kind = draw.randrange(4)
    if kind == 0:
        return TOKENIZE, json.dumps({"prompt": _WORDS * draw.choice((1, 100, 60_000))}).encode()
    path, body = draw.choice(VALID)
    if kind == 1 and path == CHAT:
        schema = {"type": "object", "properties": {f"p{draw.randrange(10**6)}": draw.choice(SCHEMAS)}}
        wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        return path, json.dumps(body | {"response_format": wanted}).encode()
    if kind == 2 and path == CHAT:
        return path, json.dumps(body | {"n": draw.choice((1, 8)), "max_tokens": 64}).encode()
    return path, json.dumps(body).encode()


def _bomb(draw: random.Random) -> tuple[str, bytes]:
    bomb = draw.choice(BOMBS)
    return bomb.path, bomb.body()


async def _client(host: str, port: int, key: str, what: str, end: float, number: int, statuses: Counter[str]) -> None:
    draw = random.Random(f"flood {number}")
    make = {"ordinary": _ordinary, "bombs": _bomb}[what]
    while time.monotonic() < end:
        path, body = make(draw)
        request = with_key(plain(number, what, path, body), key)
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                statuses[await _exchange(host, port, request.raw)] += 1
        except TimeoutError:
            statuses["no answer in time"] += 1
        except OSError:
            statuses["closed"] += 1
            await asyncio.sleep(0.1)


async def _exchange(host: str, port: int, raw: bytes) -> str:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(raw)
        with suppress(ConnectionError):  # it has answered before it read everything
            await writer.drain()
        line = await reader.readline()
        while await reader.read(1 << 16):
            pass
    finally:
        writer.close()
    return line.split()[1].decode() if line.startswith(b"HTTP/1.1 ") else "closed"


async def _main() -> None:
    url, key, clients, seconds, what = sys.argv[1:]
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    statuses = Counter[str]()
    begin = time.monotonic()
    end = begin + float(seconds)
    await asyncio.gather(
        *(_client(parts.hostname, parts.port, key, what, end, number, statuses) for number in range(int(clients)))
    )
    print(json.dumps({"statuses": statuses, "seconds": time.monotonic() - begin}))


if __name__ == "__main__":
    asyncio.run(_main())
