"""A server for all tests that leave its engine as it is."""

from collections.abc import Generator

import httpx2
import pytest

from tests.api.fake_engine import FakeEngine
from tests.api.serving import Served, serving


@pytest.fixture(scope="session")
def server() -> Generator[Served]:
    async def make_engine() -> FakeEngine:
        return FakeEngine()

    with serving(make_engine) as served:
        yield served


@pytest.fixture(scope="session")
def client(server: Served) -> Generator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture
def engine() -> FakeEngine:
    """An engine for one test, to be served by `own_server`."""
    return FakeEngine()


@pytest.fixture
def own_server(engine: FakeEngine) -> Generator[Served]:
    """A server for one test that changes the engine."""

    async def make_engine() -> FakeEngine:
        return engine

    with serving(make_engine) as served:
        yield served


@pytest.fixture
def own_client(own_server: Served) -> Generator[httpx2.Client]:
    with httpx2.Client(base_url=own_server.url, timeout=30) as client:
        yield client
