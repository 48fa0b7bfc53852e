"""The server's OpenAPI document against the server: the fast part of `make fuzz`."""

import pytest

from panacea_lab.bench.soak.soaked_server import started
from tests.fuzz.openapi import Examples, try_operations
from tests.fuzz.report import SERVE
from tests.fuzz.values import VALID


@pytest.mark.slow
def test_what_the_document_says_is_so() -> None:
    examples = Examples()
    with started(SERVE) as server:
        try_operations(server.url, 5, 0, examples)
    assert examples.problems == []
    for path, _ in VALID:
        assert examples.statuses[f"POST {path}, positive"]["200"], "a document that describes no good request"
        assert set(examples.statuses[f"POST {path}, negative"]) <= {"400", "404", "413", "415"}
