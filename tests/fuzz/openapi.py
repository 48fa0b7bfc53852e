"""schemathesis over the server's own OpenAPI document: what it says is good, and what it says is not."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase
from jsonschema import Draft202012Validator, ValidationError
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from panacea_lab.bench.measurement import table

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, negative_data_rejection]
_STREAM = "text/event-stream"
TIMEOUT_S = 60.0


@dataclass
class Examples:
    """What came of all examples."""

    statuses: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    """By operation and mode."""
    problems: list[str] = field(default_factory=list[str])

    def report(self) -> str:
        """Counts, and what is not as the document says."""
        statuses = sorted({status for each in self.statuses.values() for status in each})
        rows = [[name, *(str(each[status] or "") for status in statuses)] for name, each in self.statuses.items()]
        sent = sum(each.total() for each in self.statuses.values())
        return "\n".join(
            [f"{sent} examples of the OpenAPI document", "", table(["operation", *statuses], rows), "", *self.problems]
        )

    def as_json(self) -> dict[str, Any]:
        return {"by_operation": {n: dict(c) for n, c in self.statuses.items()}, "problems": self.problems}


def try_operations(url: str, count: int, seed: int, examples: Examples) -> None:
    """`count` examples of each operation in each mode, entered into `examples`."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    for found in schema.get_all_operations():
        if not isinstance(found, Ok):
            examples.problems.append(f"the document describes an operation wrongly: {found}")
            continue
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.NEGATIVE and operation.method == "get":
                continue  # it has nothing that could be wrong
            _try(operation, mode, count if operation.method == "post" else 1, seed, examples)


def _try(operation: Any, mode: GenerationMode, count: int, seed: int, examples: Examples) -> None:
    name = f"{operation.method.upper()} {operation.path}, {mode.value}"
    counter = examples.statuses.setdefault(name, Counter())

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    @hypothesis.given(operation.as_strategy(mode))
    def run(case: Any) -> None:
        response = case.call(timeout=TIMEOUT_S)
        counter[str(response.status_code)] += 1
        is_stream = response.headers["content-type"][0].startswith(_STREAM)
        try:
            if is_stream:
                _check_chunks(operation, response.text)
            case.validate_response(response, checks=CHECKS if is_stream else [*CHECKS, response_schema_conformance])
        except (Failure, FailureGroup, ValidationError) as failure:
            if len(examples.problems) < 50:
                examples.problems.append(f"{name}: {failure}\n{case.as_curl_command()[:800]}")

    run()


def _check_chunks(operation: Any, text: str) -> None:
    """Each event's data is what the document says of the stream, as OpenAI's own document says it of theirs.

    schemathesis would have the document describe the event around it instead. It goes away in the middle of long
    streams, so an end there need not be. Raises `ValidationError`.
    """
    document = operation.schema.raw_schema
    chunk = document["paths"][operation.path]["post"]["responses"]["200"]["content"][_STREAM]["schema"]
    validator = Draft202012Validator({**chunk, "components": document["components"]})
    *events, _ = text.split("\n\n")
    for event in events:
        data = event.removeprefix("data: ")
        if data != "[DONE]":
            validator.validate(json.loads(data))
