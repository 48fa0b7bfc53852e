"""`make fuzz`: all of it. Exit code 1 if anything is not as it should be."""

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from panacea_lab.bench.soak.soaked_server import started
from tests.fuzz.attack import attack
from tests.fuzz.mutations import hostile
from tests.fuzz.openapi import Examples, try_operations
from tests.fuzz.report import SERVE, report, verdict


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--bodies", type=int, default=12_000, help="how many raw requests")
    parser.add_argument("--examples", type=int, default=100, help="how many examples of each operation, in each mode")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same requests")
    parser.add_argument("--json", type=Path, help="write all counts to this file")
    options = parser.parse_args()
    with started(SERVE) as server:
        requests = tqdm(hostile(options.seed, options.bodies), "raw requests", options.bodies, leave=False)
        outcome = attack(server, requests, options.bodies)
    print(report(outcome), flush=True)
    examples = Examples()
    with started(SERVE) as server:
        try_operations(server.url, options.examples, options.seed, examples)
    print(examples.report())
    if options.json:
        options.json.write_text(json.dumps({"raw": outcome.as_json(), "openapi": examples.as_json()}, indent=1) + "\n")
    failed = bool(verdict(outcome) or examples.problems)
    print("NOT PASSED" if failed else "Passed.")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
