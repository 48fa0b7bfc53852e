"""The `panacea` command over the engine of `faulty_engine`, which starts at once and takes its time for each token.

python -m tests.faults.panacea_with_faults serve
"""

import sys

from panacea.config import EngineConfig, Supervision
from panacea.engine.client import EngineClient
from panacea_commands import main as cli

COMMAND = [sys.executable, "-m", "tests.faults.faulty_engine"]
_start = EngineClient.start


async def start(config: EngineConfig, supervision: Supervision | None = None) -> EngineClient:
    return await _start(config, supervision, COMMAND)


if __name__ == "__main__":
    EngineClient.start = start  # type: ignore[method-assign, assignment]
    cli.main()
