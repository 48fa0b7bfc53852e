"""Schemas are tried out in a text worker, which a hostile one may well bring down."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from panacea.engine import grammar_check
from panacea.errors import RequestError, TextWorkerError
from panacea.text.pool import TextPool
from panacea.text.schema_checks import SchemaChecks
from tests.golden_files import BASE
from tests.schemas import ENDLESS_WORK, SCHEMAS, chain

Result = TypeVar("Result")


def checking(test: Callable[[SchemaChecks, TextPool], Awaitable[Result]], *, several_tenants: bool = True) -> Result:
    """Runs a test with workers of its own."""

    async def whole() -> Result:
        pool = await TextPool.start(BASE, several_tenants=lambda: several_tenants)
        try:
            return await test(SchemaChecks(pool), pool)
        finally:
            await pool.close()

    return asyncio.run(whole())


async def error_of(checks: SchemaChecks, schema: Any, tenant: str = "a") -> BaseException | None:
    (error,) = await asyncio.gather(checks.check(json.dumps(schema), tenant), return_exceptions=True)
    return error


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def test_results_are_remembered() -> None:
    async def test(checks: SchemaChecks, pool: TextPool) -> None:
        for _ in range(2):
            assert await error_of(checks, SCHEMAS["person"]) is None
            error = await error_of(checks, {"not": {}}, "b")
            assert isinstance(error, RequestError)
            assert (error.param, "not is not supported" in str(error)) == ("response_format", True)
        assert pool.stats.jobs == 2

    checking(test)


def test_twenty_equal_schemas_are_one_check() -> None:
    async def test(checks: SchemaChecks, pool: TextPool) -> None:
        schema = json.dumps(SCHEMAS["recursive"])
        waiting = [asyncio.create_task(checks.check(schema, "a")) for _ in range(20)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # the first goes away, and the others still get the result
        first, *others = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(first, asyncio.CancelledError)
        assert others == [None] * 19
        assert pool.stats.jobs == 1

    checking(test)


def test_a_check_that_nobody_waits_for_leaves_the_queue() -> None:
    async def test(checks: SchemaChecks, pool: TextPool) -> None:
        waiting = [asyncio.create_task(checks.check(json.dumps({"const": index}), "a")) for index in range(50)]
        await until(lambda: pool.stats.waiting > 40)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await until(lambda: pool.stats.waiting == 0)
        assert pool.stats.jobs < 50
        assert await error_of(checks, {"const": 1}) is None

    checking(test)


def test_a_killed_check_is_not_remembered() -> None:
    async def test(checks: SchemaChecks, pool: TextPool) -> None:
        check = asyncio.create_task(error_of(checks, ENDLESS_WORK))
        await until(lambda: pool.stats.jobs == 1)
        (busy,) = children(pool) - {worker.pid for worker in idle(pool)}
        os.kill(busy, signal.SIGKILL)
        assert isinstance(await check, TextWorkerError)
        assert pool.stats.killed == 1
        assert await error_of(checks, SCHEMAS["person"]) is None
        again = asyncio.create_task(error_of(checks, ENDLESS_WORK))
        await until(lambda: pool.stats.jobs == 3)
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)

    checking(test)


def test_a_late_check_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(checks: SchemaChecks, pool: TextPool) -> None:
        monkeypatch.setattr("panacea.text.pool.TIME_LIMIT_S", 0.05)
        assert isinstance(await error_of(checks, ENDLESS_WORK), TextWorkerError)
        monkeypatch.undo()
        assert await error_of(checks, SCHEMAS["person"]) is None
        assert pool.stats.killed == 1

    checking(test)


@pytest.mark.slow
def test_hostile_schemas_end_their_worker_and_no_other() -> None:
    """One computes for minutes and is stopped after two seconds of CPU time, one overflows the stack."""

    async def test(checks: SchemaChecks, pool: TextPool) -> None:
        *hostile, good = await asyncio.gather(
            *(error_of(checks, schema) for schema in (ENDLESS_WORK, chain(30_000), SCHEMAS["person"]))
        )
        assert ["too much time or memory to enforce" in str(error) for error in hostile] == [True, True]
        assert good is None
        assert pool.stats.killed == 2
        error = await error_of(checks, ENDLESS_WORK)  # its own fault is remembered
        assert "too much time or memory to enforce" in str(error)
        assert pool.stats.jobs == 3

    checking(test)


@pytest.mark.slow
def test_forty_schemas_of_one_tenant_delay_no_other() -> None:
    async def test(checks: SchemaChecks, pool: TextPool) -> float:
        hostile = [ENDLESS_WORK | {"minimum": index} for index in range(40)]
        flood = [asyncio.create_task(error_of(checks, schema, "flooder")) for schema in hostile]
        await until(lambda: pool.stats.waiting == 39)
        begin = time.monotonic()
        assert await error_of(checks, SCHEMAS["text"], "innocent") is None
        took_s = time.monotonic() - begin
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
        return took_s

    # One schema of two CPU seconds may run already.
    assert checking(test) < 15


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_of_these_tests_can_be_followed(name: str) -> None:
    assert grammar_check.error_of(json.dumps(SCHEMAS[name])) is None


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "a secret"}, "Invalid type"),
        ({"$ref": "#/$defs/secret"}, "Pointer ... does not exist"),
        ({"$ref": "http://127.0.0.1:9/secret"}, "llguidance rejects it"),
        ({"type": "string", "format": "secret"}, "Unknown format"),
        ({"type": "string", "pattern": "(secret"}, "regex parse error"),
        ({"uniqueItems": True, "if": {"const": "secret"}}, "if, uniqueItems is not supported"),
        ({"$ref": "#"}, "no answer can satisfy it"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "no answer can satisfy it"),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "oneOf is supported only if"),
        ({"type": "number", "multipleOf": 1e-20}, "too many digits"),
        ({"x-guidance": {"lenient": True}}, "x-guidance must be"),
    ],
)
def test_reasons_are_given_without_the_schemas_words(schema: object, reason: str) -> None:
    error = grammar_check.error_of(json.dumps(schema))
    assert error is not None
    assert reason in error
    assert "secret" not in error


def test_without_llguidance_the_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    grammar_check.byte_tokenizer.cache_clear()
    error = grammar_check.error_of("{}")
    grammar_check.byte_tokenizer.cache_clear()
    assert error is not None
    assert "llguidance is not installed" in error


def idle(pool: TextPool) -> list[Any]:
    workers: list[Any] = vars(pool)["_idle"]
    return workers


def children(pool: TextPool) -> set[int]:
    """The process ids of all workers."""
    source = vars(pool)["_source"].pid
    with open(f"/proc/{source}/task/{source}/children", encoding="ascii") as file:
        return set(map(int, file.read().split()))
