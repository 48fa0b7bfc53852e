"""Answers side by side."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.api.fake_engine import FakeEngine
from tests.api.serving import Served, wait_until
from tests.web.conftest import OpenPage
from tests.web.visitor import answer, ask, body_of, text_of, texts, wait_until_answered, wait_until_ready


@pytest.fixture
def page(open_page: OpenPage, demo_url: str) -> Page:
    page = open_page(demo_url)
    wait_until_ready(page)
    return page


@pytest.mark.slow
def test_three_greedy_columns_differ_and_two_of_equal_preference_do_not(open_page: OpenPage, demo_url: str) -> None:
    page = open_page(f"{demo_url}/#columns=1,0,0;0,1,0;0,0,1;1,0,0")
    wait_until_ready(page)
    ask(page)
    first, second, third, control = texts(page)
    assert len({first, second, third}) == 3
    assert all((first, second, third))
    assert control == first


@pytest.mark.slow
def test_each_answer_tells_how_it_went(page: Page) -> None:
    ask(page)
    for number in (1, 2, 3):
        numbers = answer(page, number).locator(".numbers").inner_text()
        assert re.search(r"\d+ words", numbers)
        assert re.search(r"\d+ tokens\b", numbers)
        assert re.search(r"[\d.]+ m?s to first token", numbers)
        assert re.search(r"\d+ tokens/s", numbers)
    words = int(re.findall(r"(\d+) words", answer(page, 1).inner_text())[0])
    assert words == len(text_of(answer(page, 1)).split())


@pytest.mark.slow
def test_the_first_tokens_show_before_the_last_ones_are_there(
    open_page: OpenPage, own_server: Served, engine: FakeEngine
) -> None:
    engine.step_s, engine.script = 0.05, [20] * 100
    page = open_page(own_server.url)
    wait_until_ready(page)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(answer(page, 3).locator(".markdown")).not_to_be_empty()
    early = texts(page)
    assert engine.live == 3, "all in parallel, none finished"
    expect(answer(page, 1).locator(".markdown")).not_to_have_text(early[0])


def test_one_stop_ends_all_here_and_in_the_engine(open_page: OpenPage, own_server: Served, engine: FakeEngine) -> None:
    engine.step_s, engine.script = 0.02, [20] * 500
    page = open_page(f"{own_server.url}/#columns=1,0,0;0,1,0;0,0,1;base;0.5,0.5,0;0,0.5,0.5")
    wait_until_ready(page)
    page.get_by_role("button", name="Ask", exact=True).click()
    for number in range(1, 7):
        expect(answer(page, number).locator(".markdown")).not_to_be_empty()
    wait_until(lambda: engine.live == 6)
    page.get_by_role("button", name="Stop", exact=True).click()
    wait_until_answered(page)
    expect(page.locator(".numbers", has_text="stopped")).to_have_count(6)
    wait_until(lambda: engine.live == 0)
    assert engine.aborted == 6
    assert all(texts(page)), "what had come stays"


@pytest.mark.slow
def test_columns_come_and_go_between_two_and_six(page: Page) -> None:
    ask(page)
    add = page.get_by_role("button", name="Add an answer")
    for number in (4, 5, 6):
        add.click()
        wait_until_answered(page)
        assert text_of(answer(page, number)) == text_of(answer(page, 1)), "added where the chosen one is, and asked"
    expect(add).to_have_count(0)
    for number in (6, 5, 1, 1):
        page.get_by_role("button", name=f"Remove answer {number}").click()
    expect(page.get_by_role("article")).to_have_count(2)
    assert "harmless" not in answer(page, 1).locator(".words").inner_text()
    for button in page.get_by_role("button", name="Remove answer").all():
        expect(button).to_be_disabled()


def test_the_chosen_answer_stays_chosen_when_others_go(open_page: OpenPage, fake_url: str) -> None:
    page = open_page(f"{fake_url}/#columns=1,0,0;0,1,0;0,0,1;0.5,0.5,0&steer=3")
    wait_until_ready(page)
    page.get_by_role("button", name="Remove answer 1").click()
    expect(answer(page, 2)).to_have_class(re.compile("chosen"))
    page.get_by_role("button", name="Remove answer 3").click()
    expect(answer(page, 2)).to_have_class(re.compile("chosen"))
    assert answer(page, 2).locator(".words").inner_text() == "concise 100%"


@pytest.mark.slow
def test_the_others_show_their_differences_from_a_pinned_answer(page: Page) -> None:
    ask(page)
    pinned, _, other = texts(page)
    page.get_by_role("button", name="Compare the others with answer 1").click()
    assert text_of(answer(page, 1)) == pinned, "the pinned one stays as it is"
    marked = answer(page, 3).locator(".difference")
    kept = marked.evaluate("e => [...e.childNodes].filter(n => n.nodeName != 'DEL').map(n => n.textContent).join('')")
    lost = marked.evaluate("e => [...e.childNodes].filter(n => n.nodeName != 'INS').map(n => n.textContent).join('')")
    assert (kept.split(), lost.split()) == (other.split(), pinned.split())
    assert marked.locator("del").count() > 0
    page.get_by_role("button", name="Unpin answer 1").click()
    expect(page.locator(".difference")).to_have_count(0)
    assert texts(page)[2] == other


@pytest.mark.slow
def test_an_expanded_answer_takes_the_whole_width(page: Page) -> None:
    ask(page)
    before = answer(page, 2).bounding_box()
    page.get_by_role("button", name="Expand answer 2").click()
    after = answer(page, 2).bounding_box()
    assert before is not None
    assert after is not None
    assert after["width"] > 2 * before["width"]
    page.get_by_role("button", name="Shrink answer 2").click()
    assert answer(page, 2).bounding_box() == before


def test_an_answer_that_fails_says_why_and_is_asked_again(
    open_page: OpenPage, own_server: Served, engine: FakeEngine
) -> None:
    engine.script = [20] * 4
    page = open_page(own_server.url)
    wait_until_ready(page)
    ask(page, "x" * 3000)
    expect(answer(page, 1).get_by_role("alert")).to_contain_text("rejected")
    expect(answer(page, 1).get_by_role("alert")).to_contain_text("exceeds the context length")
    page.get_by_role("textbox", name="Question").fill("shorter")
    answer(page, 1).get_by_role("button", name="Ask again").click()
    wait_until_answered(page)
    expect(answer(page, 1).get_by_role("alert")).to_have_count(0)
    assert text_of(answer(page, 1))


@pytest.mark.slow
def test_settings_are_what_is_sent_and_nonsense_is_not(page: Page) -> None:
    page.get_by_text("Settings", exact=True).click()
    page.get_by_label("System prompt").fill("Be kind.")
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Max tokens").fill("9")
    page.get_by_label("Top p").fill("1.5")
    expect(page.get_by_label("Top p")).to_have_attribute("aria-invalid", "true")
    with page.expect_request("**/v1/chat/completions") as asked:
        page.get_by_role("button", name="Ask", exact=True).click()
    body = body_of(asked.value)
    assert {name: body.get(name) for name in ("temperature", "seed", "max_tokens", "top_p")} == {
        "temperature": 0.5,
        "seed": 7,
        "max_tokens": 9,
        "top_p": None,
    }
    assert body["messages"][0] == {"role": "system", "content": "Be kind."}
    wait_until_answered(page)
    expect(answer(page, 1).locator(".numbers")).to_contain_text("cut off at its token limit")


@pytest.mark.slow
def test_enter_asks_and_shift_enter_is_a_new_line(page: Page) -> None:
    box = page.get_by_role("textbox", name="Question")
    box.fill("How do I boil")
    box.press("Shift+Enter")
    box.press_sequentially("an egg?")
    box.press("Enter")
    wait_until_answered(page)
    assert box.input_value() == "How do I boil\nan egg?"
    assert all(texts(page))


@pytest.mark.slow
def test_an_example_question_is_one_click(page: Page) -> None:
    page.get_by_role("group", name="Example questions").get_by_text("How do I boil an egg?").click()
    wait_until_answered(page)
    assert "egg" in texts(page)[0]
    assert page.get_by_role("textbox", name="Question").input_value() == "How do I boil an egg?"
