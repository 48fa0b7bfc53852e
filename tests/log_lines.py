"""All that a piece of code logs, as it would stand on standard error."""

import json
import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from panacea.config import LogFormat
from panacea.logs import formatter


class _Collector(logging.Handler):
    def __init__(self, lines: list[str], kind: LogFormat) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(formatter(kind))
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(("httpx", "httpcore")):
            return  # the client of the tests, in the same process
        self._lines.append(self.format(record))


@contextmanager
def log_lines(kind: LogFormat = "json") -> Generator[list[str]]:
    """Of all packages, and from debug on: more than any --log-level shows."""
    lines: list[str] = []
    collector = _Collector(lines, kind)
    root = logging.getLogger()
    levels = {logger: logger.level for logger in (root, logging.getLogger("panacea"))}
    root.addHandler(collector)
    for logger in levels:
        logger.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(collector)
        for logger, level in levels.items():
            logger.setLevel(level)


def requests(lines: list[str]) -> list[dict[str, Any]]:
    """The lines that end a request, without those of probes."""
    parsed = [json.loads(line) for line in lines]
    return [line for line in parsed if line["message"] == "request" and line["level"] == "info"]
