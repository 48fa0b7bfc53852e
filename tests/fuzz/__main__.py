"""`make fuzz`: all of it. Exit code 1 if anything is not as it should be.

Somebody asks for `/health` throughout. An answer that takes longer than a second is a failure.
"""

import argparse
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from panacea_lab.bench.soak.soaked_server import StartedServer, started
from tests.fuzz.attack import attack
from tests.fuzz.flooders import flooding
from tests.fuzz.health_watch import watched
from tests.fuzz.hostile_templates import TEMPLATES, try_template
from tests.fuzz.mutations import hostile
from tests.fuzz.neighbour import neighbour
from tests.fuzz.openapi import Examples, try_operations
from tests.fuzz.report import SERVE, report, verdict

BOMBERS = 3
ALONE_S = 5.0
"""How long the other key is alone, for comparison."""
REFUSALS = frozenset({"200", "400", "413", "429", "503"})


@dataclass(frozen=True)
class Part:
    """What came of one part."""

    report: str
    problems: list[str]
    numbers: Mapping[str, Any]


def raw_requests(options: argparse.Namespace) -> Part:
    """Hostile requests of several tenants, over raw sockets."""
    with Tenants() as tenants, watched(tenants.server.url) as watch:
        requests = tqdm(hostile(options.seed, options.bodies, tenants.keys[1:]), "raw", options.bodies, leave=False)
        outcome = attack(tenants.server, requests, options.bodies, tenants.keys[0])
    return Part(f"{report(outcome)}\n{watch.report()}", verdict(outcome) + watch.problems(), outcome.as_json())


def openapi(options: argparse.Namespace) -> Part:
    """What schemathesis makes of the server's OpenAPI document."""
    examples = Examples()
    with started(SERVE) as server, watched(server.url) as watch:
        try_operations(server.url, options.examples, options.seed, examples)
    return Part(f"{examples.report()}\n{watch.report()}", examples.problems + watch.problems(), examples.as_json())


def bombs(options: argparse.Namespace) -> Part:
    """Bodies that are small and costly, in a loop."""
    return _beside_another_key(BOMBERS, options.seconds, "bombs")


def flood(options: argparse.Namespace) -> Part:
    """One key sends as much as it can."""
    return _beside_another_key(options.flooders, options.seconds, "ordinary")


def templates(_options: argparse.Namespace) -> Part:
    """Chat templates that mean harm."""
    problems = [problem for name in tqdm(TEMPLATES, "templates", leave=False) for problem in try_template(name)]
    return Part(f"{len(TEMPLATES)} hostile templates", problems, {"problems": problems})


def _beside_another_key(clients: int, seconds: float, what: str) -> Part:
    with Tenants() as tenants:
        with watched(tenants.server.url) as alone_watch, neighbour(tenants.server.url, tenants.keys[1]) as alone:
            time.sleep(ALONE_S)
        with (
            watched(tenants.server.url) as watch,
            neighbour(tenants.server.url, tenants.keys[1]) as beside,
            flooding(tenants.server.url, tenants.keys[0], clients, seconds, what) as flooded,
        ):
            pass
    lines = [f"{clients} clients of one key, {what}", flooded.report(), watch.report(), beside.report()]
    lines.append(f"before it: {alone_watch.report()}; {alone.report()}")
    numbers = {
        "statuses": flooded.statuses,
        "health_p50_s": watch.p50_s,
        "health_p99_s": watch.p99_s,
        "health_slowest_s": watch.slowest_s,
        "another_key_p50_s": beside.p50_s,
        "another_key_p50_alone_s": alone.p50_s,
        "another_key_longest_gap_s": max(beside.gaps_s, default=0.0),
        "wrong_answers": beside.wrong,
    }
    problems = flooded.problems(REFUSALS) + watch.problems() + beside.problems()
    return Part("\n".join(lines), problems, numbers)


class Tenants:
    """A server with four keys, while the block runs."""

    server: StartedServer

    def __init__(self) -> None:
        self.keys = [secrets.token_hex(24) for _ in range(4)]
        self._stack = ExitStack()

    def __enter__(self) -> "Tenants":
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="panacea-fuzz-")))
        file = folder / "keys"
        file.touch(0o600)
        file.write_text("\n".join(self.keys) + "\n", "utf-8")
        self.server = self._stack.enter_context(started((*SERVE, "--api-key-file", str(file))))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


PARTS: dict[str, Callable[[argparse.Namespace], Part]] = {
    "raw": raw_requests,
    "openapi": openapi,
    "bombs": bombs,
    "flood": flood,
    "templates": templates,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="which parts to run; default: all")
    parser.add_argument("--bodies", type=int, default=12_000, help="how many raw requests")
    parser.add_argument("--examples", type=int, default=100, help="how many examples of each operation, in each mode")
    parser.add_argument("--flooders", type=int, default=250, help="how many clients of one key flood the server")
    parser.add_argument("--seconds", type=float, default=45, help="how long the bombs and the flood last")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same requests")
    parser.add_argument("--json", type=Path, help="write all counts to this file")
    options = parser.parse_args()
    failed = False
    numbers: dict[str, Any] = {}
    for name in options.parts or PARTS:
        part = PARTS[name](options)
        print(f"{part.report}\n" + "".join(f"NOT PASSED: {problem}\n" for problem in part.problems), flush=True)
        failed = failed or bool(part.problems)
        numbers[name] = part.numbers
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=1) + "\n", "utf-8")
    print("NOT PASSED" if failed else "Passed.")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
