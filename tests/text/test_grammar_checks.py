"""Schemas are tried out in a process of their own, which a hostile one may well bring down."""

import asyncio
import json
import subprocess
import sys
import time
from typing import Any

import pytest

from panacea.engine import grammar_check
from panacea.errors import RequestError
from panacea.text import GrammarChecks
from tests.schemas import ENDLESS_WORK, SCHEMAS, chain


def check(checks: GrammarChecks, schema: Any) -> None:
    asyncio.run(checks.check(json.dumps(schema)))


def refusal(checks: GrammarChecks, schema: Any) -> str:
    with pytest.raises(RequestError) as raised:
        check(checks, schema)
    assert raised.value.param == "response_format"
    return str(raised.value)


def test_what_can_be_followed_passes_and_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = GrammarChecks()
    check(checks, SCHEMAS["person"])
    assert "not is not supported" in refusal(checks, {"not": {}})
    monkeypatch.setattr(subprocess, "run", None)
    check(checks, SCHEMAS["person"])
    assert "not is not supported" in refusal(checks, {"not": {}})


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
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "oneOf is supported only if"),
        ({"type": "number", "multipleOf": 1e-300}, "too many digits"),
    ],
)
def test_reasons_are_given_without_the_schemas_words(schema: object, reason: str) -> None:
    error = grammar_check.error_of(json.dumps(schema))
    assert error is not None
    assert reason in error
    assert "secret" not in error


@pytest.mark.slow
def test_hostile_schemas_take_their_own_process_with_them() -> None:
    """One computes for minutes and is stopped after seconds of its own time, one overflows the stack."""
    checks = GrammarChecks()

    async def both() -> list[BaseException | None]:
        schemas = [json.dumps(ENDLESS_WORK), json.dumps(chain(30_000)), json.dumps(SCHEMAS["person"])]
        return await asyncio.gather(*(checks.check(schema) for schema in schemas), return_exceptions=True)

    *hostile, good = asyncio.run(both())
    assert ["too much time or memory to enforce" in str(error) for error in hostile] == [True, True]
    assert good is None


def test_others_are_served_while_a_schema_is_tried() -> None:
    checks = GrammarChecks()

    async def longest_wait() -> float:
        checking = asyncio.create_task(checks.check(json.dumps(SCHEMAS["recursive"])))
        longest = 0.0
        while not checking.done():
            begin = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - begin)
        await checking
        return longest

    assert asyncio.run(longest_wait()) < 2


def test_without_llguidance_the_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    error = grammar_check.error_of("{}")
    assert error is not None
    assert "llguidance is not installed" in error
