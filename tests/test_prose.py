"""What the pages promise: short sentences, links that lead somewhere, and every page within reach of the index."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
INDEX = DOCS / "index.md"
RECORD_LIST = DOCS / "decisions" / "README.md"

PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        ROOT / "SECURITY.md",
        *DOCS.rglob("*.md"),
        *(ROOT / "clients").glob("*/README.md"),
    ]
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

MAX_README_LINES = 199
MAX_WORDS_PER_SENTENCE = 20
"""On the average of a page."""
LEAST_WORDS = 3
"""Fewer are a label, such as the name in front of a link."""

_SENTENCE_END = re.compile(r"""(?<=[.!?])\s+(?=["'(]?[A-Z0-9])""")
_HTML_TARGET = re.compile(r'\b(?:src|srcset|href)="([^"]+)"')
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:")


class Prose(NamedTuple):
    """The running text of a page: paragraphs and list items, without listings, tables, headings, images and HTML."""

    sentences: list[str]

    @property
    def words_per_sentence(self) -> float:
        return sum(map(_words, self.sentences)) / max(1, len(self.sentences))

    @property
    def longest(self) -> str:
        return max(self.sentences, key=_words, default="")


def prose_of(markdown: str) -> Prose:
    """The sentences of a page that have at least `LEAST_WORDS` words. Inline code counts as one word."""
    paragraphs = (
        " ".join(_text(token).split())
        for before, token in _inline_tokens(markdown)
        if before.type == "paragraph_open"  # cells of tables and headings have other parents
    )
    sentences = (sentence for paragraph in paragraphs for sentence in _SENTENCE_END.split(paragraph))
    return Prose([sentence for sentence in sentences if _words(sentence) >= LEAST_WORDS])


def links_of(markdown: str) -> list[str]:
    """The targets of a page's links and images, in Markdown and in HTML, that lie in this repository."""
    targets: list[str] = []
    for token in _parse(markdown):
        for each in (token, *(token.children or ())):
            if each.type in ("html_block", "html_inline"):
                targets += _HTML_TARGET.findall(each.content)
            elif each.type in ("link_open", "image"):
                targets.append(str(each.attrs.get("href") or each.attrs.get("src")))
    return [target for target in targets if not _ELSEWHERE.match(target)]


def anchors_of(markdown: str) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    anchors: set[str] = set()
    for before, token in _inline_tokens(markdown):
        if before.type == "heading_open":
            words = "".join(part.content for part in token.children or () if part.type in ("text", "code_inline"))
            anchor = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
            same = sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", known) is not None for known in anchors)
            anchors.add(f"{anchor}-{same}" if same else anchor)
    return anchors


def _parse(markdown: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(markdown)


def _inline_tokens(markdown: str) -> Iterator[tuple[Token, Token]]:
    """Each run of text, with the token that opens it."""
    for before, token in pairwise(_parse(markdown)):
        if token.type == "inline":
            yield before, token


def _text(inline: Token) -> str:
    shown = {"code_inline": "Code", "softbreak": " ", "hardbreak": " "}
    return "".join(part.content if part.type == "text" else shown.get(part.type, "") for part in inline.children or ())


def _words(sentence: str) -> int:
    return sum(re.search(r"\w", word) is not None for word in sentence.split())


def _page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def test_measure_counts_sentences_of_running_text_alone() -> None:
    page = (
        "# A heading of many words that do not count\n\nOne two `three four` five. Six\nseven [eight](x.md), nine!\n\n"
        "| a cell | of a table |\n| --- | --- |\n| that is | left out |\n\n```\na listing that is left out\n```\n\n"
        "- ten eleven twelve\n- too short\n"
    )
    assert prose_of(page).sentences == ["One two Code five.", "Six seven eight, nine!", "ten eleven twelve"]
    assert prose_of(page).words_per_sentence == pytest.approx(11 / 3)


def test_measure_finds_links_and_anchors() -> None:
    page = (
        '# `serve`: what & how\n\n## Twice\n\n## Twice\n\n[a](b.md#c) ![d](e.png) <https://x.y>\n\n<img src="f.png">\n'
        "\n```\n[no](link.md)\n```\n"
    )
    assert links_of(page) == ["b.md#c", "e.png", "f.png"]
    assert anchors_of(page) == {"serve-what--how", "twice", "twice-1"}


def test_readme_is_short() -> None:
    assert len(_page("README.md").splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("name", NAMES)
def test_sentences_are_short(name: str) -> None:
    prose = prose_of(_page(name))
    assert prose.words_per_sentence < MAX_WORDS_PER_SENTENCE, f"the longest sentence of {name}: {prose.longest}"


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    broken: list[str] = []
    for target in links_of(_page(name)):
        path, _, anchor = target.partition("#")
        file = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        if not file.exists() or (anchor and anchor not in anchors_of(file.read_text("utf-8"))):
            broken.append(target)
    assert broken == []


def test_every_page_is_within_reach_of_the_index() -> None:
    assert {*DOCS.glob("*.md"), RECORD_LIST} <= _linked_from(INDEX)
    assert set(RECORD_LIST.parent.glob("*.md")) <= _linked_from(RECORD_LIST)


def _linked_from(page: Path) -> set[Path]:
    """Files that a page links, and the page itself."""
    targets = (target.partition("#")[0] for target in links_of(page.read_text("utf-8")))
    return {page, *((page.parent / target).resolve() for target in targets)}


def test_the_index_names_files_and_functions_that_exist() -> None:
    named = re.findall(r"`([\w.]+)`\s+\(`([\w/]+\.py)`\)", INDEX.read_text("utf-8"))
    assert len(named) > 20
    missing = [
        f"{name} in {file}"
        for name, file in named
        for source in [(ROOT / "server/panacea" / file).read_text("utf-8")]
        for part in name.split(".")
        if not re.search(rf"^\s*(async )?(def|class) {part}\b", source, re.MULTILINE)
    ]
    assert missing == []
