"""A link reproduces the view; any request can be taken along as code."""

import httpx2
import pytest
from playwright.sync_api import expect

from tests.web.conftest import OpenPage
from tests.web.visitor import answer, ask, body_of, texts, wait_until_answered, wait_until_ready, weights


@pytest.mark.slow
def test_copying_the_url_reproduces_the_view(open_page: OpenPage, demo_url: str) -> None:
    page = open_page(demo_url, permissions=["clipboard-read", "clipboard-write"])
    wait_until_ready(page)
    assert "#" not in page.url, "nothing was changed yet"
    page.get_by_role("textbox", name="Question").fill("How do I boil an egg? & more #1 + 100%")
    page.get_by_role("button", name="Add an answer").click()
    page.get_by_role("spinbutton", name="helpful in per cent").fill("62.5")
    page.get_by_role("button", name="Compare the others with answer 2").click()
    page.get_by_text("Settings", exact=True).click()
    page.get_by_label("System prompt").fill("Be kind.")
    page.get_by_label("Seed").fill("11")
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_text("Link copied.")).to_be_visible()
    ask(page)
    other = open_page(page.evaluate("navigator.clipboard.readText()"))
    wait_until_ready(other)
    assert weights(other) == weights(page) == [62.5, 18.8, 18.7]
    assert other.get_by_role("textbox", name="Question").input_value() == "How do I boil an egg? & more #1 + 100%"
    expect(other.get_by_role("button", name="Unpin answer 2")).to_be_visible()
    other.get_by_text("Settings", exact=True).click()
    assert other.get_by_label("System prompt").input_value() == "Be kind."
    assert other.get_by_label("Seed").input_value() == "11"
    ask(other)
    assert texts(other) == texts(page)


@pytest.mark.slow
def test_every_view_has_a_link(open_page: OpenPage, demo_url: str) -> None:
    for view, title in (("range", "Range"), ("chat", "Chat"), ("measured", "Trade-off")):
        page = open_page(demo_url)
        wait_until_ready(page)
        page.get_by_role("button", name=title, exact=True).click()
        expect(page).to_have_url(f"{demo_url}/#view={view}")
        page.reload()
        expect(page.locator("[aria-current=page]")).to_have_text(title)


@pytest.mark.slow
def test_a_link_opened_on_the_page_replaces_the_view(open_page: OpenPage, demo_url: str) -> None:
    page = open_page(demo_url)
    wait_until_ready(page)
    ask(page)
    page.evaluate("location.hash = 'columns=0.2,0.5,0.3;base&steer=1&q=Hello'")
    expect(page.get_by_role("article")).to_have_count(2)
    assert weights(page) == [20, 50, 30]
    assert texts(page) == ["Not asked yet."] * 2


def test_a_link_of_another_server_says_what_it_left_out(open_page: OpenPage, demo_url: str) -> None:
    page = open_page(f"{demo_url}/#columns=0.5,0.5;1,0&q=Hello&nonsense=1")
    wait_until_ready(page)
    expect(page.get_by_role("alert")).to_contain_text("left out: columns, nonsense.")
    assert page.get_by_role("textbox", name="Question").input_value() == "Hello"
    page.get_by_role("alert").get_by_role("button", name="Close").click()
    expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["curl", "Python client", "openai client"])
def test_a_request_is_copied_as_code(open_page: OpenPage, demo_url: str, language: str) -> None:
    page = open_page(demo_url, permissions=["clipboard-read", "clipboard-write"])
    wait_until_ready(page)
    page.get_by_role("button", name="Copy request 3 as code").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=language).click()
    dialog.get_by_role("button", name="Copy", exact=True).click()
    expect(dialog.get_by_role("status")).to_have_text("Copied.")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert demo_url in copied
    assert "concise" in copied
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_without_a_clipboard_the_code_is_selected(open_page: OpenPage, demo_url: str) -> None:
    page = open_page(demo_url)
    wait_until_ready(page)
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    page.get_by_role("button", name="Copy request 1 as code").click()
    page.get_by_role("dialog").get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("dialog").get_by_role("status")).to_contain_text("Selected")
    assert page.evaluate("getSelection().toString()").startswith("curl ")


@pytest.mark.slow
def test_what_the_page_asks_is_what_a_plain_request_gets(open_page: OpenPage, demo_url: str) -> None:
    page = open_page(demo_url)
    wait_until_ready(page)
    with page.expect_request("**/v1/chat/completions") as asked:
        page.get_by_role("button", name="Ask", exact=True).click()
    wait_until_answered(page)
    body = body_of(asked.value) | {"stream": False}
    del body["stream_options"]
    plain = httpx2.post(f"{demo_url}/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    assert answer(page, 1).locator(".markdown").inner_text() == plain
