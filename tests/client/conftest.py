"""Servers and clients: every test of `client` runs twice, blocking and asynchronous."""

from collections.abc import Generator
from contextlib import ExitStack
from typing import Any

import pytest

from panacea_client import AsyncPanacea, Panacea
from tests.api.fake_engine import FakeEngine
from tests.api.serving import Served, serving, wait_until
from tests.client.either import Awaited, Either, MakeClient
from tests.command import serving as serving_the_demo


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PANACEA_BASE_URL", "PANACEA_API_KEY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that are not about how long the pauses are."""
    monkeypatch.setattr("panacea_client.retries._FIRST_DELAY_S", 0.01)


@pytest.fixture(scope="session")
def server() -> Generator[Served]:
    async def make_engine() -> FakeEngine:
        return FakeEngine()

    with serving(make_engine) as served:
        yield served


@pytest.fixture
def engine(server: Served) -> Generator[FakeEngine]:
    """The server's, for one test that changes it."""
    engine = server.engine
    assert isinstance(engine, FakeEngine)
    vars(engine).update(vars(FakeEngine()))
    yield engine
    wait_until(lambda: engine.live == 0)
    vars(engine).update(vars(FakeEngine()))


@pytest.fixture(params=["blocking", "asynchronous"])
def make_client(request: pytest.FixtureRequest) -> Generator[MakeClient]:
    with ExitStack() as stack:

        def make(*arguments: Any, **options: Any) -> Either:
            client: Either
            options.setdefault("verify", False)  # nobody here speaks TLS, and its context takes 30 ms a client
            if request.param == "blocking":
                client = Panacea(*arguments, **options)
            else:
                client = Awaited(AsyncPanacea(*arguments, **options))
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture
def client(server: Served, engine: FakeEngine, make_client: MakeClient) -> Either:
    return make_client(server.url, max_retries=0)


@pytest.fixture(scope="session")
def demo_url() -> Generator[str]:
    """A whole server with the demo model, as a user starts it."""
    with serving_the_demo() as (_, http):
        yield str(http.base_url)
