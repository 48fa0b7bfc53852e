"""How a line of the log looks, and what it leaves out."""

import asyncio
import json
import logging
import subprocess
import sys

import pytest

from panacea import logs
from panacea.config import LogFormat
from tests.log_lines import log_lines

logger = logging.getLogger("panacea.test")


def test_json_lines_have_fields_and_the_requests_id() -> None:
    token = logs.request_id.set("id-1")
    with log_lines("json") as lines:
        logger.warning("about %s", "this\nand that", extra={"fields": {"count": 3, "path": "/a b"}})
        logs.request_id.reset(token)
        logger.info("without")
    first, second = (json.loads(line) for line in lines)
    assert (first["level"], first["logger"], first["message"]) == ("warning", "panacea.test", "about this\nand that")
    assert (first["count"], first["path"], first["request_id"]) == (3, "/a b", "id-1")
    assert first["time"].endswith("+00:00")
    assert "request_id" not in second


def test_text_lines_are_one_line_with_the_same_fields() -> None:
    with log_lines("text") as lines:
        logger.info("it began", extra={"fields": {"count": 3}})
    assert lines[0].endswith(" info    it began count=3")


@pytest.mark.parametrize("kind", ["text", "json"])
def test_exceptions_are_types_and_places_without_messages(kind: LogFormat) -> None:
    def inner() -> None:
        raise KeyError("canary")

    def outer() -> None:
        try:
            inner()
        except KeyError as error:
            raise ValueError("canary again") from error

    with log_lines(kind) as lines:
        try:
            outer()
        except ValueError as error:
            logger.error("it failed", exc_info=error)
            logger.exception("once more")
    assert len(lines) == 2
    for line in lines:
        assert "canary" not in line
        for part in ("builtins.KeyError", "builtins.ValueError", "in inner", "in outer", "test_logs.py"):
            assert part in line


def test_exceptions_that_lead_to_each_other_end() -> None:
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    with log_lines() as lines:
        logger.error("a ring", exc_info=first)
    assert json.loads(lines[0])["exception"] == "builtins.ValueError\nbuiltins.ValueError"


def test_asyncio_tells_no_more_of_a_lost_exception() -> None:
    async def fail() -> None:
        raise ValueError("canary")

    async def forget() -> None:
        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        del task

    with log_lines() as lines:
        asyncio.run(forget())
    (line,) = (line for line in lines if "never retrieved" in line)
    assert "canary" not in line
    assert "builtins.ValueError" in line


PROGRAM = """
import logging, sys, threading, warnings
from panacea.config import LogConfig
from panacea.logs import configure_logs
configure_logs(LogConfig({level!r}, "json"))
logging.getLogger("panacea.x").debug("detail")
logging.getLogger("panacea.x").info("information")
logging.getLogger("other").info("noise")
logging.getLogger("other").warning("a warning")
warnings.warn("deprecated")
def fail():
    raise ValueError("canary")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["detail", "information", "a warning"]),
        ("info", ["information", "a warning"]),
        ("warning", ["a warning"]),
        ("error", []),
    ],
)
def test_a_process_logs_from_its_level_on_and_all_that_nobody_caught(level: str, expected: list[str]) -> None:
    program = [sys.executable, "-c", PROGRAM.format(level=level)]
    result = subprocess.run(program, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "canary" not in result.stderr
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    uncaught = ["uncaught exception"] * 2
    warning = [] if level == "error" else ["<string>:10: UserWarning: deprecated"]
    assert [line["message"] for line in lines] == [*expected, *warning, *uncaught]
    assert all("builtins.ValueError" in line["exception"] for line in lines[-2:])
