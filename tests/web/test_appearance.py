"""Themes, sizes, weight, accessibility, and any number of dimensions."""

from collections.abc import Generator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Response, ViewportSize, expect

from panacea.preference import Dimension, PreferenceSpace
from tests.api.fake_engine import FakeEngine
from tests.api.serving import serving
from tests.web.conftest import DESKTOP, PHONE, OpenPage
from tests.web.visitor import answer, ask, texts, wait_until_answered, wait_until_ready, weights

VIEWS = ("compare", "range", "chat", "measured")


def background(page: Page) -> tuple[int, ...]:
    color: str = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    return tuple(int(part) for part in color[4:-1].split(","))


@pytest.mark.slow
def test_the_theme_is_the_systems_until_it_is_chosen(open_page: OpenPage, demo_url: str) -> None:
    light, dark = open_page(demo_url), open_page(demo_url, color_scheme="dark")
    wait_until_ready(dark)
    assert min(background(light)) > 200
    assert max(background(dark)) < 60
    dark.get_by_role("button", name="Theme").click()
    assert min(background(dark)) > 200
    dark.reload()
    assert min(background(dark)) > 200, "the choice is remembered"
    dark.get_by_role("button", name="Theme").click()
    assert max(background(dark)) < 60


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("width", [320, 390, 820, 1360])
def test_nothing_is_wider_than_the_window(open_page: OpenPage, demo_url: str, view: str, width: int) -> None:
    page = open_page(f"{demo_url}/#view={view}", viewport={"width": width, "height": 844})
    wait_until_ready(page)
    if view == "compare":
        ask(page)
        page.get_by_role("button", name="Compare the others with answer 1").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_a_phone_does_all_of_it(open_page: OpenPage, demo_url: str) -> None:
    page = open_page(demo_url, viewport=PHONE, has_touch=True)
    wait_until_ready(page)
    page.get_by_role("button", name="Ask", exact=True).tap()
    wait_until_answered(page)
    assert len(set(texts(page))) == 3
    page.get_by_text("Exact weights").tap()
    page.get_by_role("spinbutton", name="harmless in per cent").fill("40")
    assert weights(page) == [60, 40, 0]
    for button in page.get_by_role("button").all():
        if button.is_visible():
            box = button.bounding_box()
            assert box is not None
            assert min(box["width"], box["height"]) >= 24, "targets are large enough for a finger (WCAG 2.5.8)"


@pytest.mark.slow
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious(
    open_page: OpenPage, demo_url: str, color_scheme: str, viewport: ViewportSize
) -> None:
    page = open_page(demo_url, viewport=viewport, color_scheme="dark" if color_scheme == "dark" else "light")
    wait_until_ready(page)
    ask(page)
    page.get_by_role("button", name="Compare the others with answer 1").click()
    page.get_by_text("Settings", exact=True).click()
    check_accessibility(page)
    for title in ("Range", "Chat", "Trade-off"):
        page.get_by_role("button", name=title, exact=True).click()
        if title == "Chat":
            page.get_by_role("textbox", name="Question", exact=True).fill("How do I boil an egg?")
            page.keyboard.press("Enter")
            wait_until_answered(page)
            page.get_by_role("button", name="Edit question 1").click()
        check_accessibility(page)
    page.get_by_role("button", name="Chat", exact=True).click()
    page.get_by_role("button", name="Copy request 1 as code").click()
    check_accessibility(page)


def check_accessibility(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert not serious, "\n".join(f"{each['id']}: {[node['html'] for node in each['nodes']]}" for each in serious)


def test_axe_would_find_something(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content("<main><img src='data:,'><button></button></main>")
    with pytest.raises(AssertionError, match="button-name"):
        check_accessibility(page)
    page.close()


@pytest.mark.slow
def test_the_keyboard_reaches_everything_and_shows_where_it_is(open_page: OpenPage, demo_url: str) -> None:
    page = open_page(demo_url)
    wait_until_ready(page)
    ask(page)
    shown = page.locator(
        "button:visible:enabled, input:visible:enabled, textarea:visible, summary:visible, [data-handle]"
    )
    expected = shown.count()
    page.evaluate("document.activeElement.blur()")
    seen: set[str] = set()
    for _ in range(expected + 5):
        page.keyboard.press("Tab")
        where = page.evaluate(
            """() => {
                const element = document.activeElement;
                const all = [...document.querySelectorAll('button, input, textarea, summary, [data-handle]')];
                const own = [element, element.querySelector('.reach')].filter(Boolean).map((e) => getComputedStyle(e));
                const isMarked = own.some((style) => style.outlineStyle !== 'none' || style.stroke !== 'none')
                    || element.closest('.field') !== null;
                return element === document.body ? '' : `${all.indexOf(element)} ${isMarked}`;
            }"""
        )
        if where:
            assert where.endswith("true"), page.evaluate("document.activeElement.outerHTML")
            seen.add(where)
    assert len(seen) == expected


def test_the_page_is_small_and_comes_from_one_origin(browser: Browser, demo_url: str) -> None:
    page = browser.new_page()
    sizes: dict[str, int] = {}
    arrived: list[Response] = []
    page.on("response", lambda response: arrived.append(response))  # noqa: PLW0108 (Playwright marks its handlers)
    page.goto(demo_url)
    wait_until_ready(page)
    for response in arrived:
        response.finished()
        if "/v1/" not in response.url:
            sizes[response.url] = response.request.sizes()["responseBodySize"]
    page.close()
    assert all(url.startswith(demo_url) for url in sizes)
    assert len(sizes) > 20
    assert sum(sizes.values()) < 100_000


@pytest.mark.slow
def test_reduced_motion_is_respected(browser: Browser, demo_url: str) -> None:
    for preference, moves in (("reduce", False), ("no-preference", True)):
        context = browser.new_context(reduced_motion="reduce" if preference == "reduce" else "no-preference")
        page = context.new_page()
        page.goto(demo_url)
        wait_until_ready(page)
        durations: list[str] = page.evaluate(
            "[...document.querySelectorAll('*')].map((e) => getComputedStyle(e).transitionDuration)"
        )
        assert any(duration != "0s" for duration in durations) == moves
        context.close()


# Dimensions.


def served_space(names: tuple[str, ...]) -> Generator[str]:
    async def make_engine() -> FakeEngine:
        return FakeEngine()

    dimensions = tuple(Dimension(name) for name in names)
    space = PreferenceSpace(dimensions, tuple(1.0 for _ in names), {}, ("Hello?",)) if names else None
    with serving(make_engine, space=space) as served:
        yield served.url


@pytest.fixture
def space_url(request: pytest.FixtureRequest) -> Generator[str]:
    yield from served_space(request.param)


@pytest.mark.parametrize("space_url", [()], indirect=True, ids=["none"])
def test_a_bare_base_model_is_asked_without_steering(open_page: OpenPage, space_url: str) -> None:
    page = open_page(space_url)
    wait_until_ready(page)
    expect(page.get_by_text("no preference to steer")).to_be_visible()
    ask(page, "Hello?")
    assert all(texts(page))
    expect(page.get_by_role("navigation").get_by_role("button")).to_have_count(2)
    page.get_by_role("button", name="Chat", exact=True).click()
    page.get_by_role("textbox", name="Question", exact=True).fill("Hello?")
    page.keyboard.press("Enter")
    wait_until_answered(page)


@pytest.mark.parametrize("space_url", [("only",)], indirect=True, ids=["one"])
def test_one_dimension_is_compared_with_the_base(open_page: OpenPage, space_url: str) -> None:
    page = open_page(space_url)
    wait_until_ready(page)
    expect(page.get_by_text("This adapter has one dimension, only")).to_be_visible()
    ask(page)
    assert len(set(texts(page))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("space_url", [("warm", "brief")], indirect=True, ids=["two"])
def test_two_dimensions_have_one_slider(open_page: OpenPage, space_url: str) -> None:
    page = open_page(space_url)
    wait_until_ready(page)
    slider = page.get_by_role("slider")
    expect(slider).to_have_count(1)
    expect(slider).to_have_attribute("aria-valuetext", "warm 100%, brief 0%")
    slider.fill("250")
    expect(answer(page, 1).locator(".words")).to_have_text("warm 75%, brief 25%")
    ask(page)
    page.get_by_role("button", name="Range", exact=True).click()
    page.get_by_role("button", name="Show the range").click()
    expect(page.get_by_text("5 of 5")).to_be_visible()


@pytest.mark.slow
@pytest.mark.parametrize("space_url", [("a", "b", "c", "d", "e" * 64)], indirect=True, ids=["five"])
def test_more_dimensions_have_linked_sliders_with_locks(open_page: OpenPage, space_url: str) -> None:
    page = open_page(space_url)
    wait_until_ready(page)
    expect(page.locator(".triangle")).to_have_count(0)
    page.get_by_role("button", name="even").click()
    assert weights(page) == [20] * 5
    page.get_by_role("button", name="Lock b", exact=True).click()
    page.get_by_role("spinbutton", name="a in per cent").fill("50")
    assert weights(page) == [50, 20, 10, 10, 10]
    ask(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    check_accessibility(page)
