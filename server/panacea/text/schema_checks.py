"""Checks schemas before the engine gets them, each in a process of its own."""

import asyncio
import json
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

from panacea.errors import RequestError

TIME_LIMIT_S = 30.0
"""Wall-clock limit of one check, for a busy machine. The check's process limits its own CPU seconds."""

_AT_ONCE = 2
_REMEMBERED = 4096

_TOO_MUCH = "response_format: the JSON schema takes too much time or memory to enforce; simplify it"


class GrammarChecks:
    """Checks schemas and caches the results. A new schema costs a tenth of a second of one core."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="grammar-check")
        self._errors: OrderedDict[bytes, str | None] = OrderedDict()

    async def check(self, schema: str) -> None:
        """Raises `RequestError` (param "response_format") if the engine cannot enforce this schema."""
        key = sha256(schema.encode()).digest()
        if key not in self._errors:
            error = await asyncio.get_running_loop().run_in_executor(self._threads, _error_of, schema)
            self._errors[key] = error
        self._errors.move_to_end(key)
        while len(self._errors) > _REMEMBERED:
            self._errors.popitem(last=False)
        error = self._errors[key]
        if error is not None:
            raise RequestError(error, "response_format")


def _error_of(schema: str) -> str | None:
    command = [sys.executable, "-m", "panacea.engine.grammar_check"]
    try:
        done = subprocess.run(command, input=schema.encode(), capture_output=True, timeout=TIME_LIMIT_S, check=True)
        error: str | None = json.loads(done.stdout)["error"]
    except (subprocess.SubprocessError, ValueError):
        # The process was killed, crashed, or ran out of memory.
        return _TOO_MUCH
    return error
