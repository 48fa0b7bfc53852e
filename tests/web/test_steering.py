"""A preference is moved by mouse, touch and keyboard, and the answer follows."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.web.conftest import PHONE, OpenPage
from tests.web.visitor import (
    answer,
    ask,
    body_of,
    handle,
    place,
    text_of,
    texts,
    wait_until_answered,
    wait_until_ready,
    weights,
)


@pytest.fixture
def page(open_page: OpenPage, demo_url: str) -> Page:
    page = open_page(demo_url)
    wait_until_ready(page)
    return page


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=8)
    page.mouse.up()


@pytest.mark.slow
def test_the_mouse_drags_a_point_and_its_answer_follows(page: Page) -> None:
    ask(page)
    before = texts(page)
    drag(page, place(page, (1, 0, 0)), place(page, (0, 1, 0)))
    expect(handle(page, 1)).to_have_attribute("aria-valuetext", "harmless 100%")
    expect(answer(page, 1).locator(".markdown")).to_contain_text("Careful")
    wait_until_answered(page)
    after = texts(page)
    assert weights(page) == [0, 100, 0]
    assert after[0] == before[1], "as the other answer at this preference"
    assert after[1:] == before[1:], "the others stay as they are"


def test_a_press_beside_a_point_takes_it_there_and_one_on_a_point_chooses_it(page: Page) -> None:
    page.mouse.click(*place(page, (0.5, 0.25, 0.25)))
    assert weights(page) == pytest.approx([50, 25, 25], abs=1)
    page.mouse.click(*place(page, (0, 0, 1)))
    expect(handle(page, 3)).to_have_class(re.compile("chosen"))
    assert weights(page) == [0, 0, 100]
    assert handle(page, 1).get_attribute("aria-valuetext") != "concise 100%"


def test_outside_the_triangle_a_point_stays_at_its_border(page: Page) -> None:
    x, y = place(page, (1, 0, 0))
    drag(page, (x, y), (x + 600, y + 250))
    helpful, harmless, concise = weights(page)
    assert (harmless, helpful + concise) == (0, 100)


def test_a_finger_drags_a_point(open_page: OpenPage, demo_url: str) -> None:
    page = open_page(demo_url, viewport=PHONE, has_touch=True)
    wait_until_ready(page)
    touch = page.context.new_cdp_session(page)

    def send(kind: str, *points: tuple[float, float]) -> None:
        touches: list[dict[str, Any]] = [{"x": x, "y": y} for x, y in points]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    page.locator(".triangle").scroll_into_view_if_needed()
    start, end = place(page, (0, 0, 1)), place(page, (0.5, 0, 0.5))
    scrolled = page.evaluate("scrollY")
    send("touchStart", start)
    for step in range(1, 6):
        part = step / 5
        send("touchMove", (start[0] + (end[0] - start[0]) * part, start[1] + (end[1] - start[1]) * part))
    send("touchEnd")
    expect(handle(page, 3)).to_have_attribute("aria-valuetext", re.compile(r"^helpful (49|50|51)%, concise"))
    assert page.evaluate("scrollY") == scrolled, "the finger moves the point, not the page"


def test_arrow_keys_move_a_point(page: Page) -> None:
    handle(page, 2).focus()
    expect(handle(page, 2)).to_have_class(re.compile("chosen"))
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert weights(page) == [0, 75, 25]
    page.keyboard.press("Shift+ArrowRight")
    assert weights(page) == [0, 74, 26]
    page.keyboard.press("ArrowUp")
    assert weights(page)[0] > 0
    assert sum(weights(page)) == pytest.approx(100)


def test_sliders_and_number_fields_are_linked_and_locks_hold(page: Page) -> None:
    page.get_by_role("button", name="even").click()
    page.get_by_role("slider", name="concise", exact=True).focus()
    page.keyboard.press("End")
    assert weights(page) == [0, 0, 100]
    page.keyboard.press("Home")
    assert weights(page) == pytest.approx([50, 50, 0], abs=0.11), "back as they were to each other"
    page.get_by_role("spinbutton", name="helpful in per cent").fill("30")
    assert weights(page) == [30, 70, 0]
    page.get_by_role("button", name="Lock helpful").click()
    page.get_by_role("spinbutton", name="concise in per cent").fill("99")
    assert weights(page)[:2] == [30, 0]
    page.keyboard.press("Tab")
    assert weights(page) == [30, 0, 70], "as far as the lock leaves room"
    expect(page.get_by_role("slider", name="helpful", exact=True)).to_be_disabled()
    page.get_by_role("button", name="Lock helpful").click()
    page.get_by_role("slider", name="helpful", exact=True).focus()
    page.keyboard.press("ArrowRight")
    assert weights(page) == [31, 0, 69]


@pytest.mark.slow
def test_presets_are_vertices_edges_centre_what_the_server_names_and_the_base(page: Page) -> None:
    presets = page.get_by_role("group", name="Presets").get_by_role("button")
    expected = {
        "helpful": [100, 0, 0],
        "harmless": [0, 100, 0],
        "concise": [0, 0, 100],
        "careful": [50, 50, 0],
        "helpful + concise": [50, 0, 50],
        "harmless + concise": [0, 50, 50],
        "even": [33.4, 33.3, 33.3],
        "balanced": [40, 30, 30],
    }
    assert presets.all_inner_texts() == [*expected, "base"]
    for name, shown in expected.items():
        presets.get_by_text(name, exact=True).click()
        assert weights(page) == shown
        expect(page.locator(".chips button[aria-pressed=true]")).to_have_text(name)


@pytest.mark.slow
def test_the_base_answers_without_preference_and_a_press_in_the_triangle_steers_again(page: Page) -> None:
    page.get_by_role("group", name="Presets").get_by_text("base", exact=True).click()
    expect(answer(page, 1).locator(".words")).to_have_text("bare base model")
    with page.expect_request("**/v1/chat/completions") as asked:
        page.get_by_role("button", name="Ask", exact=True).click()
    body = body_of(asked.value)
    assert body["model"] == "panacea-demo:base"
    assert "preference" not in body
    wait_until_answered(page)
    assert text_of(answer(page, 1)) not in texts(page)[1:]
    page.mouse.click(*place(page, (0, 0.5, 0.5)))
    assert weights(page) == pytest.approx([0, 50, 50], abs=1)


@pytest.mark.slow
def test_while_a_point_moves_only_its_last_places_are_asked_for(page: Page) -> None:
    ask(page)
    asked: list[Any] = []
    page.on("request", lambda request: asked.append(request) if "chat" in request.url else None)
    handle(page, 1).focus()
    for _ in range(10):
        page.keyboard.press("ArrowDown")
    wait_until_answered(page)
    page.wait_for_timeout(300)
    wait_until_answered(page)
    assert 1 <= len(asked) <= 6
    last = body_of(asked[-1])["preference"]
    assert [round(100 * last[name]) for name in ("helpful", "harmless", "concise")] == [round(w) for w in weights(page)]
