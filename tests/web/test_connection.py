"""Keys, and servers that go away."""

import re
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress

import pytest
from playwright.sync_api import expect

from panacea.errors import EngineError
from tests.api.fake_engine import FakeEngine
from tests.api.serving import Served, serving
from tests.web.conftest import OpenPage
from tests.web.visitor import answer, ask, text_of, texts, wait_until_answered, wait_until_ready

KEY = "a-secret-key"


@pytest.fixture
def guarded() -> Generator[Served]:
    async def make_engine() -> FakeEngine:
        return FakeEngine(script=[20] * 5)

    with serving(make_engine, api_keys=(KEY,)) as served:
        yield served


@pytest.mark.slow
def test_the_page_asks_for_the_key_and_keeps_it_to_itself(open_page: OpenPage, guarded: Served) -> None:
    page = open_page(guarded.url)
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Key", exact=True).fill("wrong")
    dialog.get_by_role("button", name="Use this key").click()
    expect(dialog).to_contain_text("did not accept this key")
    dialog.get_by_label("Key", exact=True).fill(KEY)
    dialog.get_by_label("Key", exact=True).press("Enter")
    expect(dialog).to_have_count(0)
    wait_until_ready(page)
    ask(page)
    assert all(texts(page))
    page.reload()
    wait_until_ready(page)
    page.get_by_role("button", name="Add an answer").click()
    expect(page).to_have_url(re.compile("#columns="))
    assert KEY not in page.url
    page.get_by_role("button", name="Copy request 1 as code").click()
    for language in ("curl", "Python client", "openai client"):
        page.get_by_role("button", name=language).click()
        assert KEY not in page.content()
    assert page.evaluate("Object.values(localStorage)") == []
    assert page.context.cookies() == []


def test_a_page_without_the_key_shows_nothing_of_the_server(open_page: OpenPage, guarded: Served) -> None:
    page = open_page(guarded.url)
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    expect(page.get_by_role("status").first).to_have_text("key needed")
    assert "helpful" not in page.content()
    page.get_by_role("button", name="API key").click()
    expect(page.get_by_role("dialog", name="API key")).to_be_visible()


@pytest.mark.slow
def test_a_dead_engine_is_noticed_and_so_is_its_return(
    open_page: OpenPage, own_server: Served, engine: FakeEngine
) -> None:
    page = open_page(own_server.url)
    wait_until_ready(page)
    page.get_by_role("textbox", name="Question").fill("something of mine")
    engine.alive = False
    expect(page.get_by_role("alert")).to_contain_text("the engine is not running")
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_disabled()
    engine.alive = True
    wait_until_ready(page)
    expect(page.get_by_role("alert")).to_have_count(0)
    assert page.get_by_role("textbox", name="Question").input_value() == "something of mine"
    ask(page)


@contextmanager
def relay(port: int) -> Generator[tuple[int, threading.Event]]:
    """A port that leads to `port` while the event is set; when it is cleared all connections break."""
    is_up = threading.Event()
    is_up.set()
    connections: list[socket.socket] = []

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while is_up.is_set() and (content := source.recv(65536)):
                target.sendall(content)
        except OSError:
            pass
        finally:
            for end in (source, target):
                with suppress(OSError):  # closed already; without this, a `recv` of the other thread keeps it open
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            if not is_up.is_set():
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", port))
            connections.extend((near, far))
            for ends in ((near, far), (far, near)):
                threading.Thread(target=pump, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()

        class Breaking(threading.Event):
            def clear(self) -> None:
                is_up.clear()
                for connection in connections:
                    with suppress(OSError):  # it was closed already
                        connection.shutdown(socket.SHUT_RDWR)
                connections.clear()

            def set(self) -> None:
                is_up.set()

        yield listener.getsockname()[1], Breaking()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        Breaking().clear()


@pytest.mark.slow
def test_a_lost_server_is_noticed_and_recovered_from(
    open_page: OpenPage, own_server: Served, engine: FakeEngine
) -> None:
    engine.step_s, engine.script = 0.02, [20] * 500
    with relay(own_server.port) as (port, connected):
        page = open_page(f"http://127.0.0.1:{port}/#seed=1")
        wait_until_ready(page)
        page.get_by_role("button", name="Ask", exact=True).click()
        expect(answer(page, 1).locator(".markdown")).not_to_be_empty()
        connected.clear()
        expect(answer(page, 1).get_by_role("alert")).to_contain_text("connection was lost")
        expect(page.locator(".notice")).to_contain_text("does not answer")
        assert text_of(answer(page, 1)), "what had come stays"
        connected.set()
        expect(page.locator(".notice")).to_have_count(0)
        wait_until_ready(page)
        engine.step_s, engine.script = 0, [20] * 3
        answer(page, 1).get_by_role("button", name="Ask again").click()
        expect(answer(page, 1).get_by_role("alert")).to_have_count(0)


def test_an_engine_that_fails_in_the_middle_says_so_in_its_answer(
    open_page: OpenPage, own_server: Served, engine: FakeEngine
) -> None:
    engine.script, engine.failure, engine.failure_at = [20] * 9, EngineError("a made-up failure"), 3
    page = open_page(own_server.url)
    wait_until_ready(page)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(answer(page, 2).get_by_role("alert")).to_contain_text("The answer is incomplete")
    engine.failure = None
    wait_until_ready(page)
    answer(page, 2).get_by_role("button", name="Ask again").click()
    wait_until_answered(page)
    assert text_of(answer(page, 2))
