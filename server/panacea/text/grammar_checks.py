"""Trying schemas out before the engine gets them, each in a process of its own."""

import asyncio
import json
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

from panacea.errors import RequestError

TIME_LIMIT_S = 30.0
"""For one schema: seconds of computing are limited in its process, and this is for a machine that is busy."""

_AT_ONCE = 2
_REMEMBERED = 4096

_TOO_MUCH = "response_format: the JSON schema takes too much work or memory to follow"


class GrammarChecks:
    """Remembers which schemas can be followed. One that was never seen costs a tenth of a second of one core."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="grammar-check")
        self._errors: OrderedDict[bytes, str | None] = OrderedDict()

    async def check(self, schema: str) -> None:
        """Raises `RequestError` (param "response_format") unless answers can follow this schema."""
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
        # It was killed, or it crashed, or had no memory left to say anything.
        return _TOO_MUCH
    return error
