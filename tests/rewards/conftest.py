"""Rules of one test are not there for the next."""

import sys
from collections.abc import Generator

import pytest


@pytest.fixture(autouse=True)
def own_modules(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Imports find what this test wrote, and leave nothing behind."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in {"rules", "neighbour"} & (set(sys.modules) - before):
        del sys.modules[name]
