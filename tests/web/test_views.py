"""Range, chat and trade-off."""

import re

import httpx2
import pytest
from playwright.sync_api import Page, Request, expect

from tests.api.fake_engine import FakeEngine
from tests.api.serving import Served
from tests.web.conftest import OpenPage
from tests.web.visitor import answer, ask, body_of, text_of, texts, wait_until_answered, wait_until_ready, weights


@pytest.fixture
def page(open_page: OpenPage, demo_url: str) -> Page:
    page = open_page(demo_url)
    wait_until_ready(page)
    return page


def show(page: Page, view: str) -> None:
    page.get_by_role("navigation", name="Views").get_by_text(view, exact=True).click()


# Range.


@pytest.mark.slow
def test_the_range_over_the_triangle_has_every_answer_in_its_place(page: Page) -> None:
    ask(page)
    vertices = texts(page)
    show(page, "Range")
    page.get_by_role("button", name="Show the range").click()
    expect(page.get_by_text("10 of 10")).to_be_visible()
    wait_until_answered(page)
    rows = page.locator(".places-row").all()
    assert [row.get_by_role("article").count() for row in rows] == [1, 2, 3, 4]
    corner = [rows[0].get_by_role("article"), rows[3].get_by_role("article").first, rows[3].get_by_role("article").last]
    assert [text_of(each) for each in corner] == vertices
    assert [each.locator(".words").inner_text() for each in corner] == ["helpful 100%", "harmless 100%", "concise 100%"]
    assert len(set(texts(page))) > 3
    expect(page.locator(".triangle .mark.done")).to_have_count(10)


@pytest.mark.slow
def test_the_range_along_an_edge(page: Page) -> None:
    show(page, "Range")
    page.get_by_role("combobox", name="Range").select_option("helpful to concise")
    page.get_by_role("combobox", name="Points").select_option("5")
    page.get_by_role("button", name="Show the range").click()
    expect(page.get_by_text("5 of 5")).to_be_visible()
    wait_until_answered(page)
    assert page.locator(".place .words").all_inner_texts() == [
        "helpful 100%",
        "helpful 75%, concise 25%",
        "helpful 50%, concise 50%",
        "helpful 25%, concise 75%",
        "concise 100%",
    ]
    lengths = [len(text.split()) for text in texts(page)]
    assert lengths[-1] < lengths[0]
    page.locator(".place").nth(2).get_by_role("button", name="Compare from here").click()
    wait_until_answered(page)
    assert weights(page) == [50, 0, 50]
    assert text_of(answer(page, 4))


@pytest.mark.slow
def test_one_picture_never_shows_answers_to_two_questions(page: Page) -> None:
    show(page, "Range")
    page.get_by_role("button", name="Show the range").click()
    expect(page.get_by_text("10 of 10")).to_be_visible()
    page.get_by_role("combobox", name="Range").select_option("helpful to concise")
    page.get_by_role("combobox", name="Points").select_option("2")
    page.get_by_role("textbox", name="Question").fill("How do I boil an egg?")
    page.get_by_role("button", name="Show the range").click()
    wait_until_answered(page)
    page.get_by_role("combobox", name="Range").select_option("the whole triangle")
    page.get_by_role("combobox", name="Points").select_option("4")
    assert [text for text in texts(page) if text != "Not asked yet."] == [
        text for text in texts(page) if re.search(r"\begg", text)
    ]
    assert texts(page).count("Not asked yet.") == 8


# Chat.


def say(page: Page, message: str) -> None:
    page.get_by_role("textbox", name="Question", exact=True).fill(message)
    page.keyboard.press("Enter")
    wait_until_answered(page)


def sent_messages(request: Request) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in body_of(request)["messages"]]


@pytest.mark.slow
def test_each_turn_has_the_preference_of_its_moment_and_the_conversation_so_far(page: Page) -> None:
    show(page, "Chat")
    presets = page.get_by_role("group", name="Presets")
    presets.get_by_text("concise", exact=True).click()
    say(page, "How do I boil an egg?")
    presets.get_by_text("harmless", exact=True).click()
    with page.expect_request("**/v1/chat/completions") as asked:
        say(page, "How do I unblock a sink?")
    first, second = text_of(answer(page, 1)), text_of(answer(page, 2))
    assert sent_messages(asked.value) == [
        ("user", "How do I boil an egg?"),
        ("assistant", first),
        ("user", "How do I unblock a sink?"),
    ]
    assert body_of(asked.value)["preference"] == {"helpful": 0, "harmless": 1, "concise": 0}
    assert [answer(page, n).locator(".words").inner_text() for n in (1, 2)] == ["concise 100%", "harmless 100%"]
    assert first != second


@pytest.mark.slow
def test_a_question_is_edited_and_sent_again_and_what_came_after_it_goes(page: Page) -> None:
    show(page, "Chat")
    say(page, "How do I boil an egg?")
    say(page, "How do I unblock a sink?")
    page.get_by_role("button", name="Edit question 1").click()
    page.get_by_role("textbox", name="Question 1").fill("How do I fix a flat bicycle tyre?")
    page.keyboard.press("Escape")
    expect(page.get_by_text("How do I boil an egg?")).to_be_visible()
    page.get_by_role("button", name="Edit question 1").click()
    page.get_by_role("textbox", name="Question 1").fill("How do I fix a flat bicycle tyre?")
    with page.expect_request("**/v1/chat/completions") as asked:
        page.get_by_role("button", name="Send again").click()
    wait_until_answered(page)
    assert sent_messages(asked.value) == [("user", "How do I fix a flat bicycle tyre?")]
    expect(page.get_by_role("article")).to_have_count(1)
    assert "tyre" in text_of(answer(page, 1))


@pytest.mark.slow
def test_an_answer_is_asked_for_again_at_another_preference(page: Page) -> None:
    show(page, "Chat")
    say(page, "How do I unblock a sink?")
    before = text_of(answer(page, 1))
    page.get_by_role("group", name="Presets").get_by_text("concise", exact=True).click()
    page.get_by_role("button", name="Answer question 1 again").click()
    wait_until_answered(page)
    assert text_of(answer(page, 1)) != before
    assert answer(page, 1).locator(".words").inner_text() == "concise 100%"


@pytest.mark.slow
def test_stop_keeps_what_had_come_and_the_conversation_goes_on(
    open_page: OpenPage, own_server: Served, engine: FakeEngine
) -> None:
    engine.step_s, engine.script = 0.02, [20] * 500
    page = open_page(f"{own_server.url}/#view=chat")
    wait_until_ready(page)
    page.get_by_role("textbox", name="Question", exact=True).fill("one")
    page.keyboard.press("Enter")
    expect(answer(page, 1).locator(".markdown")).not_to_be_empty()
    page.get_by_role("button", name="Stop").click()
    wait_until_answered(page)
    kept = text_of(answer(page, 1))
    assert kept
    engine.script = [20] * 3
    with page.expect_request("**/v1/chat/completions") as asked:
        say(page, "two")
    assert sent_messages(asked.value)[1][0] == "assistant"
    assert sent_messages(asked.value)[1][1].strip() == kept


# Trade-off.


def test_nothing_is_drawn_that_was_not_measured(page: Page, demo_url: str) -> None:
    sweep = httpx2.get(f"{demo_url}/v1/evaluation").json()["sweeps"][0]
    show(page, "Trade-off")
    points = page.locator("circle.point")
    expect(points).to_have_count(len(sweep["points"]))
    labels = [point.get_attribute("aria-label") or "" for point in points.all()]
    for point, label in zip(sweep["points"], labels, strict=True):
        helpful, harmless = (round(reward, 3) for reward in point["rewards"][:2])
        assert f"reward: helpful {helpful:g}, reward: harmless {harmless:g}" in label
    across = [float(point.get_attribute("cx") or "nan") for point in points.all()]
    expected = [point["rewards"][0] for point in sweep["points"]]
    slope = (across[0] - across[1]) / (expected[0] - expected[1])
    assert across == pytest.approx([across[0] + slope * (each - expected[0]) for each in expected])
    assert page.locator(".chart path:not(.grid):not(.error)").count() == 0, "no curve"
    page.get_by_text("All numbers").click()
    expect(page.locator("tbody tr")).to_have_count(len(sweep["points"]))


@pytest.mark.slow
def test_error_bars_stay_within_the_plot(page: Page, demo_url: str) -> None:
    evaluation = httpx2.get(f"{demo_url}/v1/evaluation").json()
    for sweep in evaluation["sweeps"]:
        for point in sweep["points"]:
            point["standard_errors"] = [0.4 for _ in point["standard_errors"]]
    page.route("**/v1/evaluation", lambda route: route.fulfill(json=evaluation))
    page.reload()
    show(page, "Trade-off")
    expect(page.locator(".chart .error")).to_have_count(len(evaluation["sweeps"][0]["points"]))

    def reach(of: str) -> list[float]:
        boxes = [each.bounding_box() for each in page.locator(f".chart {of}").all()]
        known = [box for box in boxes if box is not None]
        assert len(known) == len(boxes)
        rights, bottoms = [box["x"] + box["width"] for box in known], [box["y"] + box["height"] for box in known]
        return [-min(box["x"] for box in known), -min(box["y"] for box in known), max(rights), max(bottoms)]

    assert all(bar <= edge for bar, edge in zip(reach(".error"), reach(".grid"), strict=True))


def test_the_chosen_preference_is_ringed_where_it_was_measured_or_nearest_to_it(page: Page) -> None:
    show(page, "Trade-off")
    expect(page.locator(".legend")).to_contain_text("the chosen preference")
    page.get_by_role("button", name=re.compile("^helpful 50%, concise 50%:")).click()
    assert weights(page) == [50, 0, 50]
    page.get_by_role("spinbutton", name="helpful in per cent").fill("55")
    expect(page.locator(".legend")).to_contain_text(
        "the measured point nearest to the chosen preference: helpful 50%, concise 50%"
    )
    expect(page.locator(".chart .ring")).to_have_count(1)


@pytest.mark.slow
def test_answers_show_as_single_samples_where_they_can(page: Page) -> None:
    ask(page)
    counts = [len(text.split()) for text in texts(page)]
    show(page, "Trade-off")
    expect(page.locator(".chart .live")).to_have_count(0)
    page.get_by_label("Across").select_option("weight: concise")
    page.get_by_label("Up").select_option("words")
    expect(page.locator(".chart .live")).to_have_count(3)
    labels = [each.get_attribute("aria-label") or "" for each in page.locator(".chart .live").all()]
    assert [int(label.rpartition(" ")[2]) for label in labels] == counts
    assert all(label.startswith("A single answer") for label in labels)
    expect(page.locator(".legend")).to_contain_text("each a single sample")


def test_a_model_that_was_never_measured_says_so(open_page: OpenPage, fake_url: str) -> None:
    page = open_page(f"{fake_url}/#view=measured")
    expect(page.get_by_text("has no evaluation")).to_be_visible()
    expect(page.locator(".chart")).to_have_count(0)
