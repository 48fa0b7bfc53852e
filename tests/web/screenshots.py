"""Makes the README's pictures from the page itself: `make screenshots`."""

import base64
import os
import shutil
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, FloatRect, Page, sync_playwright
from tqdm import tqdm

import panacea
from panacea_train.evaluation import load_evaluation
from panacea_train.evaluation.evaluation_run import EvaluationRun
from panacea_train.report import render_report
from tests.command import serving
from tests.web.visitor import QUESTION, answer, ask, handle, place, wait_until_answered, wait_until_ready

IMAGES = Path(__file__).parents[2] / "docs/images"
STRIP = ((1.0, 0.0, 0.0), (0.6, 0.4, 0.0), (0.15, 0.75, 0.1), (0.0, 0.9, 0.1), (0.2, 0.1, 0.7))
"""Preferences of the film strip, in the demo model's order: helpful, harmless, concise."""
FRAME_WIDTH = 270
SCALE = 1.5
MARGIN = 16
"""Pixels around the part of the report."""


def main() -> None:
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        raise SystemExit("needs Chromium: apt-get install chromium")
    IMAGES.mkdir(exist_ok=True)
    arguments = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with (
        serving() as (_, client),
        sync_playwright() as playwright,
        tqdm(total=8, desc="pictures") as progress,
    ):
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        url = str(client.base_url)
        for theme in ("light", "dark"):
            for name, take in (("compare", compare), ("tradeoff", trade_off)):
                page = open_page(browser, url, theme)
                take(page)
                page.screenshot(path=IMAGES / f"{name}-{theme}.png")
                page.context.close()
                progress.update()
            strip(browser, url, theme)
            progress.update()
            report(browser, theme)
            progress.update()
        browser.close()


def open_page(browser: Browser, url: str, theme: Literal["light", "dark"], height: int = 800) -> Page:
    page = browser.new_page(
        viewport={"width": 1280, "height": height},
        color_scheme=theme,
        device_scale_factor=SCALE,
        reduced_motion="reduce",
    )
    page.goto(url)
    wait_until_ready(page)
    return page


def compare(page: Page) -> None:
    """Three preferences inside the triangle and their answers."""
    for number, preference in enumerate(((0.7, 0.2, 0.1), (0.15, 0.75, 0.1), (0.25, 0.0, 0.75)), 1):
        page.mouse.click(*place(page, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))[number - 1]))
        page.mouse.click(*place(page, preference))
    ask(page, QUESTION)
    page.mouse.click(*place(page, (0.7, 0.2, 0.1)))
    wait_until_answered(page)
    page.mouse.move(0, 0)


def trade_off(page: Page) -> None:
    """The measured front."""
    page.get_by_role("button", name="Trade-off").click()
    page.get_by_label("Up").select_option("reward: concise")
    page.mouse.click(*place(page, (0.7, 0.1, 0.2)))


def strip(browser: Browser, url: str, theme: Literal["light", "dark"]) -> None:
    """One point on its way through the triangle, and its answer at each stop."""
    page = open_page(browser, f"{url}#columns=1,0,0;base", theme)
    ask(page, QUESTION)
    page.evaluate("document.documentElement.style.setProperty('--card', 'var(--paper)')")
    frames: list[tuple[bytes, bytes]] = []
    for preference in STRIP:
        handle(page, 1).focus()
        page.mouse.click(*place(page, preference))
        page.wait_for_timeout(300)
        wait_until_answered(page)
        page.mouse.move(0, 0)
        frames.append((page.locator(".triangle").screenshot(), answer(page, 1).locator(".answer-text").screenshot()))
    background: str = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    page.context.close()
    sheet = browser.new_page(viewport={"width": FRAME_WIDTH * len(STRIP), "height": 600}, device_scale_factor=SCALE)
    cells = "".join(f"<div>{''.join(map(as_element, frame))}</div>" for frame in frames)
    style = (
        f"body {{ margin: 0; display: flex; width: max-content; background: {background} }} "
        f"div {{ width: {FRAME_WIDTH}px; padding: 8px; box-sizing: border-box }} "
        "img { width: 100%; display: block } img + img { margin-top: 12px }"
    )
    sheet.set_content(f"<!doctype html><style>{style}</style>{cells}")
    sheet.locator("body").screenshot(path=IMAGES / f"strip-{theme}.png")
    sheet.close()


def report(browser: Browser, theme: Literal["light", "dark"]) -> None:
    """The fronts and maps that `panacea eval` reports of the demo."""
    evaluation = load_evaluation(Path(panacea.__file__).parent / "demo/adapter/evaluation.json")
    page = browser.new_page(
        viewport={"width": 1100, "height": 800}, color_scheme=theme, device_scale_factor=SCALE, reduced_motion="reduce"
    )
    page.set_content(render_report([EvaluationRun("Panacea demo", evaluation)]))
    first = page.get_by_role("heading", name="Rewards against each other").first.bounding_box()
    last = page.get_by_text("words per answer").first.bounding_box()
    assert first is not None
    assert last is not None
    top, bottom = first["y"] - MARGIN, last["y"] - 2 * MARGIN
    clip: FloatRect = {"x": 0, "y": top, "width": 1100, "height": bottom - top}
    page.screenshot(path=IMAGES / f"report-{theme}.png", full_page=True, clip=clip)
    page.close()


def as_element(picture: bytes) -> str:
    return f'<img src="data:image/png;base64,{base64.b64encode(picture).decode()}">'


if __name__ == "__main__":
    main()
