"""The evaluation's report in a real browser: nothing runs, nothing overflows, everybody can read it."""

from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, ViewportSize

from panacea_train.evaluation import load_evaluation
from panacea_train.pareto import simplex_grid
from panacea_train.report import write_report
from tests.report.made_up import DEMO, Named, example, made_up
from tests.report.test_page import HOSTILE
from tests.web.conftest import DESKTOP
from tests.web.test_appearance import check_accessibility

NARROW: ViewportSize = {"width": 360, "height": 740}


def reports() -> dict[str, list[Named]]:
    grid = simplex_grid(3, 4)
    examples = [example(each, [(1.0, 0.0, 0.0), (0.2, 0.3, 0.5)], each) for each in HOSTILE]
    hostile = [
        made_up(each, ("a", HOSTILE[5], HOSTILE[0]), examples=examples, prompts=1, strength=0.1 * index)
        for index, each in enumerate(HOSTILE[3:6])
    ]
    return {
        "demo": [Named("demo", load_evaluation(DEMO))],
        "comparison": [made_up("one", temperatures=(0.7, 0.0)), made_up("two", preferences=grid[:3])],
        "hostile": hostile,
        "five dimensions": [made_up(dimensions=("a", "b", "c", "d", "e" * 64))],
        "two dimensions": [made_up(dimensions=("a", "b")), made_up("other", dimensions=("a", "b"), strength=0.1)],
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "viewport", "color_scheme"),
    [
        ("demo", NARROW, "light"),
        ("comparison", DESKTOP, "dark"),
        ("hostile", NARROW, "dark"),
        ("five dimensions", NARROW, "light"),
        ("two dimensions", NARROW, "light"),
    ],
)
def test_everybody_can_read_it(
    browser: Browser, tmp_path: Path, name: str, viewport: ViewportSize, color_scheme: Literal["light", "dark"]
) -> None:
    write_report(reports()[name], tmp_path / "report.html")
    context = browser.new_context(viewport=viewport, color_scheme=color_scheme)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.on("request", lambda request: problems.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    problems.remove(page.url)  # the page itself was asked for, and nothing else
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    check_accessibility(page)
    assert problems == []
    context.close()


def test_hostile_answers_are_shown_letter_by_letter(browser: Browser, tmp_path: Path) -> None:
    runs = [made_up(examples=[example(each, [(1.0, 0.0, 0.0)], each) for each in HOSTILE])]
    write_report(runs, tmp_path / "report.html")
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    shown: list[str] = page.evaluate("[...document.querySelectorAll('div.answer')].map((each) => each.textContent)")
    pictures = {0x00: "␀", 0x07: "␇", 0x1B: "␛"}
    assert shown == [each.translate(pictures).replace("\r\n", "\n") for each in HOSTILE]
    assert page.locator("script, img, svg[onload]").count() == 0
    page.close()
