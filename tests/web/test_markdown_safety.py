"""A model's text can only ever be text: whatever it says, nothing of it runs, is fetched, or looks like the page."""

from collections.abc import Generator
from html import unescape
from typing import Any

import pytest
from playwright.sync_api import Browser, Dialog, Error, Page

from tests.web.markdown_payloads import DO, HTML, MARKDOWN
from tests.web.modules import call_module

# What answers may be made of: element names with their attributes, and what those may hold.
VIOLATIONS = """
  const ALLOWED = {
    div: { class: /^(markdown|heading|table)$/, role: /^(heading|region)$/, "aria-level": /^[4-9]$/,
      tabindex: /^0$/, "aria-label": /^Table$/ },
    p: { class: /^plain$/ }, pre: { tabindex: /^0$/ }, code: {}, blockquote: {}, hr: {}, br: {}, ul: {}, li: {},
    ol: { start: /^\\d{1,9}$/ }, table: {}, thead: {}, tbody: {}, tr: {}, td: { class: /^align-(left|center|right)$/ },
    th: { scope: /^col$/, class: /^align-(left|center|right)$/ },
    strong: {}, em: {}, del: {},
    a: { href: /^(https?:\\/\\/|mailto:)/, title: /^(https?:\\/\\/|mailto:)/, target: /^_blank$/,
      rel: /^noopener noreferrer nofollow$/ },
  };
  const violations = (root) => [...root.querySelectorAll("*")].flatMap((element) => {
    const attributes = Object.hasOwn(ALLOWED, element.localName) ? ALLOWED[element.localName] : null;
    if (attributes === null || element.namespaceURI !== "http://www.w3.org/1999/xhtml") return [element.localName];
    const wrong = [...element.attributes]
      .filter(({ name, value }) => !Object.hasOwn(attributes, name) || !attributes[name].test(value))
      .map(({ name, value }) => `${element.localName} ${name}=${value}`);
    if (element.localName !== "a") return wrong;
    const is_safe = ["http:", "https:", "mailto:"].includes(element.protocol) && element.attributes.length === 4;
    return is_safe ? wrong : [...wrong, `a to ${element.href}`];
  });
"""

RENDER = (
    """async ({ Markdown }, texts) => {
      const { h, render } = await import("/page/vendor/preact.js");
"""
    + VIOLATIONS
    + """
      const root = document.createElement("div");
      document.body.append(root);
      const found = texts.map((text) => {
        const attached = root.appendChild(document.createElement("div"));
        render(h(Markdown, { text }), attached);
        const detached = document.createElement("div");
        render(h(Markdown, { text }), detached);
        return { violations: [...violations(attached), ...violations(detached)], text: attached.textContent };
      });
      await new Promise((resolve) => setTimeout(resolve, 300)); // whatever there is to load, fail or start
      return found;
    }"""
)

STREAM = (
    """async ({ Markdown }, texts) => {
      const { h, render } = await import("/page/vendor/preact.js");
"""
    + VIOLATIONS
    + """
      const root = document.body.appendChild(document.createElement("div"));
      const found = [];
      for (const text of texts) {
        for (let length = 1; length <= text.length; length += 1) {
          render(h(Markdown, { text: text.slice(0, length) }), root);
          if (violations(root).length > 0) found.push(text.slice(0, length));
        }
      }
      return found;
    }"""
)


class Watched:
    """A page, and what has happened to it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.events: list[str] = []
        page.on("dialog", self.dismiss)
        page.on("popup", lambda popup: self.events.append(f"popup {popup.url}"))
        page.on("framenavigated", lambda frame: self.events.append(f"navigated to {frame.url}"))
        page.on("request", lambda request: self.events.append(f"asked for {request.url}"))
        page.on("pageerror", lambda error: self.events.append(f"error {error}"))

    def dismiss(self, dialog: Dialog) -> None:
        self.events.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def harm(self, origin: str) -> list[str]:
        """What no answer may cause; the page itself only looks whether its server is there."""
        own = {f"asked for {origin}/{path}" for path in ("ready", "page/markdown.js", "page/vendor/preact.js")}
        pwned = self.page.evaluate("() => window.__pwned")
        return [*(event for event in self.events if event not in own), *(["pwned"] if pwned is not None else [])]


@pytest.fixture(scope="module")
def live(browser: Browser, fake_url: str) -> Generator[Watched]:
    """The page as visitors have it, at rest."""
    page = browser.new_page()
    page.goto(fake_url)
    page.get_by_role("main").wait_for()
    page.wait_for_load_state("networkidle")
    yield Watched(page)
    page.close()


@pytest.fixture
def trusting(browser: Browser) -> Generator[Watched]:
    """A page that believes what it is told."""
    page = browser.new_page()
    page.set_content("<!doctype html><title>Trusting</title>")
    yield Watched(page)
    page.close()


def words(text: str) -> str:
    """Without what Unix, HTML and Markdown take for the same space."""
    return " ".join(text.split())


def rendered(live: Watched, texts: list[str]) -> list[Any]:
    found: list[Any] = call_module(live.page, "markdown", RENDER, texts)
    return found


@pytest.mark.slow
def test_markup_in_an_answer_is_shown_as_it_was_written(live: Watched, fake_url: str) -> None:
    assert len(HTML) > 50
    for payload, found in zip(HTML, rendered(live, HTML), strict=True):
        assert found["violations"] == [], payload
        assert words(unescape(found["text"])) == words(unescape(payload))
    assert live.harm(fake_url) == []


def test_nowhere_in_markdown_does_markup_come_to_life(live: Watched, fake_url: str) -> None:
    places = ["before {} after", "- {}", "> {}", "**{}**", "# {}", "| a |\n|-|\n| {} |", "a\n{}", "[{}](http://x.test)"]
    texts = [place.replace("{}", payload) for place in places for payload in HTML]
    for text, found in zip(texts, rendered(live, texts), strict=True):
        assert found["violations"] == [], text
    assert live.harm(fake_url) == []


def test_links_lead_to_the_web_or_a_mailbox_or_nowhere(live: Watched, fake_url: str) -> None:
    assert len(MARKDOWN) > 200
    for payload, found in zip(MARKDOWN, rendered(live, MARKDOWN), strict=True):
        assert found["violations"] == [], payload
        assert "click" in found["text"], payload
    assert live.harm(fake_url) == []


def test_an_answer_is_as_harmless_after_every_character_that_comes(live: Watched, fake_url: str) -> None:
    payloads = [*HTML[::3], *MARKDOWN[::9], *MARKDOWN[-36:]]
    assert call_module(live.page, "markdown", STREAM, payloads) == []
    assert live.harm(fake_url) == []


def test_a_page_that_trusts_markup_falls_for_it(trusting: Watched) -> None:
    """The control: the same look at the same payloads finds what is wrong with each, and what they do."""
    found = trusting.page.evaluate(
        f"""async (payloads) => {{
          {VIOLATIONS}
          return payloads.map((payload) => {{
            const root = document.body.appendChild(document.createElement("div"));
            root.innerHTML = payload;
            return violations(root).length;
          }});
        }}""",
        [payload.replace("src=/stolen", "src=http://127.0.0.1:9/stolen") for payload in HTML],
    )
    missed = [payload for payload, count in zip(HTML, found, strict=True) if count == 0]
    assert missed == []
    trusting.page.wait_for_function("() => window.__pwned !== undefined")
    asked = [event for event in trusting.harm("") if "stolen" in event]
    assert len(asked) >= 3


@pytest.mark.parametrize(
    "attack",
    [
        "document.body.innerHTML = text",
        "document.body.outerHTML = text",
        "document.body.insertAdjacentHTML('beforeend', text)",
        "document.write(text)",
        "new DOMParser().parseFromString(text, 'text/html')",
        "document.createRange().createContextualFragment(text)",
        "document.createElement('iframe').srcdoc = text",
        "document.createElement('script').text = text",
        "document.createElement('script').src = '/page/main.js'",
        "document.body.setAttribute('onclick', text)",
        "trustedTypes.createPolicy('mine', { createHTML: (html) => html })",
    ],
)
def test_the_browser_refuses_strings_as_markup_or_code_on_this_page(live: Watched, fake_url: str, attack: str) -> None:
    with pytest.raises(Error, match=r"requires 'Trusted|Policy .* disallowed"):
        live.page.evaluate(f"(text) => {{ {attack}; }}", f"<img src=x onerror={DO}>")
    assert live.harm(fake_url) == []


def test_what_gets_in_as_an_element_still_cannot_run_or_fetch(browser: Browser, fake_url: str) -> None:
    """The server's policy is there even where the page's own care would fail."""
    page = browser.new_page()
    page.goto(fake_url)
    blocked = page.evaluate(
        """async () => {
          const blocked = [];
          addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
          const add = (name, attribute, value) => {
            const element = document.createElement(name);
            element[attribute] = value;
            document.body.append(element);
          };
          add("img", "src", "http://127.0.0.1:9/stolen");
          add("iframe", "src", "/stolen");
          add("video", "src", "/stolen");
          add("base", "href", "/stolen/");
          add("style", "textContent", "* { color: red }");
          fetch("http://127.0.0.1:9/stolen").catch(() => {});
          await new Promise((resolve) => setTimeout(resolve, 300));
          return [...new Set(blocked)].sort();
        }"""
    )
    assert blocked == ["base-uri", "connect-src", "frame-src", "img-src", "media-src", "style-src-elem"]
    assert page.url == f"{fake_url}/"
    page.close()
