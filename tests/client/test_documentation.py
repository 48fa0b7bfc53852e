"""The examples in docstrings and in the README say what a real server says."""

import doctest
import importlib
import pkgutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import panacea_client
from panacea_client import Panacea

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = sorted(module.name for module in pkgutil.walk_packages(panacea_client.__path__, "panacea_client."))
README = Path(__file__).parents[2] / "clients" / "python" / "README.md"


@contextmanager
def names(url: str) -> Generator[dict[str, Any]]:
    """What the examples leave to be imagined behind the first one."""
    import asyncio

    with Panacea(url) as client:
        yield {**vars(panacea_client), "asyncio": asyncio, "client": client}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str, demo_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANACEA_BASE_URL", demo_url)
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    with names(demo_url) as globs:
        for test in doctest.DocTestFinder(exclude_empty=True).find(module, globs=globs):
            runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.slow
def test_readme(demo_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANACEA_BASE_URL", demo_url)
    with names(demo_url) as globs:
        result = doctest.testfile(str(README), module_relative=False, globs=globs, optionflags=FLAGS, encoding="utf-8")
    assert result.attempted > 5
    assert result.failed == 0
