"""The page in a real browser: Debian's Chromium, driven by Playwright."""

import os
import shutil
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Literal, Protocol

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tests.api.fake_engine import FakeEngine
from tests.api.serving import Served, serving
from tests.command import serving as serving_command
from tests.web.modules import CallModule, TimeModule, call_module, time_module

DESKTOP: ViewportSize = {"width": 1360, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
LONGEST_WAIT_MS = 30_000
"""For what should come at once. A test that fails waits so long; one that passes does not."""


class OpenPage(Protocol):
    """Opens a URL in a context of its own."""

    def __call__(
        self,
        url: str,
        *,
        viewport: ViewportSize = DESKTOP,
        has_touch: bool = False,
        color_scheme: Literal["light", "dark"] = "light",
        permissions: Sequence[str] = (),
    ) -> Page: ...


@pytest.fixture(scope="package")
def browser() -> Generator[Browser]:
    """One for the package alone: while it runs, no other event loop can run in this thread."""
    executable = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    if executable is None:
        missing = "needs Chromium: apt-get install chromium"
        if "PANACEA_REQUIRE_CHROMIUM" in os.environ:
            pytest.fail(missing)
        pytest.skip(missing)
    arguments = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    expect.set_options(timeout=LONGEST_WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def demo_url() -> Generator[str]:
    """A server of the demo model, as `make run` starts it."""
    with serving_command() as (_, client):
        yield str(client.base_url).rstrip("/")


@pytest.fixture(scope="package")
def fake_url() -> Generator[str]:
    """A server whose engine is a few lines, for what does not depend on a model."""

    async def make_engine() -> FakeEngine:
        return FakeEngine()

    with serving(make_engine) as served:
        yield served.url


@pytest.fixture
def engine() -> FakeEngine:
    """An engine for one test, to be served by `own_server`."""
    return FakeEngine()


@pytest.fixture
def own_server(engine: FakeEngine) -> Generator[Served]:
    """A server for one test that changes the engine, or ends it."""

    async def make_engine() -> FakeEngine:
        return engine

    with serving(make_engine) as served:
        yield served


@pytest.fixture
def open_page(browser: Browser) -> Generator[OpenPage]:
    """At the end of the test no page may have had an error of its own, or asked anything of another origin."""
    problems: list[str] = []
    with ExitStack() as stack:

        def open_page(
            url: str,
            *,
            viewport: ViewportSize = DESKTOP,
            has_touch: bool = False,
            color_scheme: Literal["light", "dark"] = "light",
            permissions: Sequence[str] = (),
        ) -> Page:
            origin = "/".join(url.split("/")[:3])
            context = browser.new_context(
                viewport=viewport, has_touch=has_touch, color_scheme=color_scheme, permissions=permissions
            )
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(LONGEST_WAIT_MS)
            page.on("pageerror", lambda error: problems.append(f"error: {error}"))
            page.on(
                "request",
                lambda request: None if request.url.startswith((origin, "data:")) else problems.append(request.url),
            )
            page.goto(url)
            return page

        yield open_page
    assert not problems


@pytest.fixture(scope="package")
def modules_page(browser: Browser, fake_url: str) -> Generator[Page]:
    """One page for all tests that only compute something with the page's modules."""
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(fake_url)
    yield page
    page.close()
    assert not errors


@pytest.fixture(scope="package")
def modules(modules_page: Page) -> CallModule:
    return partial(call_module, modules_page)


@pytest.fixture(scope="package")
def time_of(modules_page: Page) -> TimeModule:
    session = modules_page.context.new_cdp_session(modules_page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    return partial(time_module, modules_page, session)
