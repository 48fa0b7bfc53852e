"""What a visitor sees and does on the page."""

import re
from typing import Any

from playwright.sync_api import Locator, Page, Request, expect

QUESTION = "How do I unblock a sink?"


def wait_until_ready(page: Page) -> None:
    """The server's model is known and it can be asked."""
    expect(page.get_by_role("status").first).to_have_text("ready")


def ask(page: Page, question: str | None = None) -> None:
    """Asks in the Compare view and waits for all answers."""
    if question is not None:
        page.get_by_role("textbox", name="Question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()
    wait_until_answered(page)


def wait_until_answered(page: Page) -> None:
    """Nothing is being written any more."""
    expect(page.locator(".answer-text").first).to_be_visible()
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    expect(page.get_by_role("button", name="Stop", exact=True)).to_have_count(0)


def answer(page: Page, number: int) -> Locator:
    """A column of the Compare view, or a reply in the Chat view."""
    return page.get_by_role("article", name=f"Answer {number}")


def text_of(column: Locator) -> str:
    return column.locator(".answer-text").inner_text().strip()


def texts(page: Page) -> list[str]:
    """All answers that are shown."""
    return [each.inner_text().strip() for each in page.locator(".answer-text").all()]


def weights(page: Page) -> list[float]:
    """What the number fields say, in per cent."""
    return [float(field.input_value()) for field in page.locator(".percent input").all()]


def handle(page: Page, number: int) -> Locator:
    """A point in the triangle."""
    return page.get_by_role("slider", name=re.compile(rf"^Preference {number}:"))


def place(page: Page, preference: tuple[float, float, float]) -> tuple[float, float]:
    """Where in the window the triangle has this preference."""
    box = page.locator(".triangle .face").bounding_box()
    assert box is not None
    _, second, third = preference
    return box["x"] + box["width"] * (third + (1 - second - third) / 2), box["y"] + box["height"] * (second + third)


def body_of(request: Request) -> dict[str, Any]:
    """What the page sent."""
    body: Any = request.post_data_json
    assert isinstance(body, dict)
    return body
