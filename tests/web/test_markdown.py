"""Markdown as the page shows it, with another parser for an oracle."""

from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from tests.web.modules import CallModule, TimeModule

Outline = list["str | tuple[str, Outline]"]
"""Texts, and elements as names with what is in them."""

VOID = {"hr", "br"}
INLINE = {"strong", "em", "del", "code", "a"}

RENDER = """async ({ Markdown }, texts) => {
  const { h, render } = await import("/page/vendor/preact.js");
  // Headings as they would be called elsewhere, and tables without the box around them.
  const nameOf = (element) =>
    element.getAttribute("role") === "heading" ? `h${element.getAttribute("aria-level") - 3}`
    : element.localName === "a" ? `a ${element.getAttribute("href")}`
    : element.localName === "ol" && element.start !== 1 ? `ol ${element.start}`
    : element.matches(".align-center, .align-right") ? `${element.localName} ${element.className.slice(6)}`
    : element.localName;
  const outline = (node) => [...node.childNodes].flatMap((child) =>
    child.nodeType === Node.TEXT_NODE ? [child.data]
    : child.matches(".table, .markdown") ? outline(child)
    : [[nameOf(child), outline(child)]]);
  return texts.map((text) => {
    const root = document.createElement("div");
    render(h(Markdown, { text }), root);
    return outline(root);
  });
}"""

RENDERED = """async ({ Markdown }, [before, repeated, times, after]) => {
  const { h, render } = await import("/page/vendor/preact.js");
  render(h(Markdown, { text: before + repeated.repeat(times) + after }), document.createElement("div"));
}"""


class _Outliner(HTMLParser):
    """The outline of HTML that is well formed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[Outline] = [[]]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = [value for name, value in attrs if name in ("href", "start") and value is not None]
        aligned = [value.removeprefix("text-align:") for name, value in attrs if name == "style" and value is not None]
        values += [each for each in aligned if each != "left"]
        inside: Outline = []
        self.open[-1].append((" ".join([tag, *values]), inside))
        if tag not in VOID:
            self.open.append(inside)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].append(data)


def outline_of_html(html: str) -> Outline:
    outliner = _Outliner()
    outliner.feed(html)
    outliner.close()
    return outliner.open[0]


def tidy(outline: Outline, parent: str = "") -> Outline:
    """With neighbouring texts as one, and without space that nobody sees."""
    result: Outline = []
    for each in outline:
        if not isinstance(each, str):
            result.append((each[0], tidy(each[1], each[0])))
        elif result and isinstance(result[-1], str):
            result[-1] += each
        else:
            result.append(each)
    if parent == "code":
        return [each.rstrip("\n") if isinstance(each, str) else each for each in result]
    texts = [" ".join(f".{each}.".split())[1:-1] if isinstance(each, str) else each for each in result]
    if parent.partition(" ")[0] not in INLINE:
        texts = [each if _is_beside_words(texts, at) else _stripped(each) for at, each in enumerate(texts)]
    return [each for each in texts if each]


def _stripped(each: "str | tuple[str, Outline]") -> "str | tuple[str, Outline]":
    return each.strip() if isinstance(each, str) else each


def _is_beside_words(outline: Outline, place: int) -> bool:
    """Whether an element of the same line stands next to it, so that spaces count."""
    neighbours = [outline[at] for at in (place - 1, place + 1) if 0 <= at < len(outline)]
    return any(not isinstance(each, str) and each[0].partition(" ")[0] in INLINE for each in neighbours)


def shown(modules: CallModule, texts: list[str]) -> list[Outline]:
    found: list[Outline] = modules("markdown", RENDER, texts)
    return [tidy(outline) for outline in found]


SAMPLES = [
    "Soak the whetstone in water.\nLay the blade nearly flat.\n\nWipe it dry.",
    "# One\n## Two *three*\n### Four `five`\n#### Six\n##### Seven\n###### Eight\n####### not a heading",
    "Setext\n======\n\nSecond\n------\n\ntext",
    "- one\n- two\n  - three\n    - four\n  - five\n- six",
    "- one\n\n- two\n\n  still two\n\n- three",
    "1. one\n2. two\n   1. inner\n   2. inner too\n      - deep\n3. three",
    "7. seven\n8. eight",
    "0. nought\n1. one",
    "1) with\n2) brackets",
    "* one\n\n      code in an item\n\n* two",
    "| a | b | c |\n|:--|:-:|--:|\n| 1 | **2** | `3` |\n| 4 | 5 | x \\| y |\n",
    "| a | b |\n|---|---|\n| only one |\n| 1 | 2 | 3 |",
    "```python\nif x < 1 and y:\n    print('<b>')\n\n\n# *not* emphasis\n```\nafter",
    "~~~\ntildes\n```\nstill\n~~~",
    "    indented code\n\twith a tab\n\nafter",
    "*em* _em_ **strong** __strong__ ***both*** **a *nested* b** snake_case_word 2*3*4 a * b",
    "~~gone~~ and `code with *stars* and &amp;` and ``a ` b``",
    "&amp; &lt;b&gt; &quot;x&quot; &#65;&#x42; &nosuchthing; AT&T a&b;",
    "\\*not em\\* \\`not code\\` \\# \\[x\\](y) \\\\ \\a",
    "hard  \nbreak and\\\nanother and\nnone",
    "> quoted\n> **text**\n>\n> > nested\n\nafter",
    "> lazy\ncontinuation\n\n> - list in\n> - a quote",
    "before\n\n---\n\nafter\n\n***\n\nend",
    "[a link](https://example.org/a?b=1&c=2#d) and [**bold**](http://example.org/)",
    "[ref][1] and [named]\n\n[1]: https://example.org/one 'title'\n[named]: <https://example.org/two>",
    "[entity](https://example.org/?a=1&amp;b=2) <https://example.org/auto> [brackets](https://example.org/a_(b))",
    "Unicode: naïve 北京 **粗体** 🔪 e\u0301 — “quotes”",
    "a\n- list right after\n- text\n\nb",
    "1. one\n\n   ```\n   code\n   ```\n\n2. two",
    "***\n\n- \n- x\n\n#\n\n**",
    "",
    "\n\n  \n",
]


def test_ordinary_markdown_has_the_structure_that_commonmark_says(modules: CallModule) -> None:
    oracle = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for text, found in zip(SAMPLES, shown(modules, SAMPLES), strict=True):
        expected = oracle.render(text).replace("<s>", "<del>").replace("</s>", "</del>")
        assert found == tidy(outline_of_html(expected)), text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "- [ ] to do\n- [x] done\n- [y] neither",
            [["ul", [["li", ["☐ to do"]], ["li", ["☑ done"]], ["li", ["[y] neither"]]]]],
        ),
        ("<b>bold</b> *em*", [["p", ["<b>bold</b> ", ["em", ["em"]]]]]),
        ("<div>\n<p>*as*</p>\n</div>\n\nafter", [["p", ["<div> <p>*as*</p> </div>"]], ["p", ["after"]]]),
        ("a <!-- b --> c", [["p", ["a <!-- b --> c"]]]),
        ("![a cat](https://example.org/cat.png)", [["p", [["a https://example.org/cat.png", ["[picture: a cat]"]]]]]),
        (
            "![](https://example.org/c.png)",
            [["p", [["a https://example.org/c.png", ["[picture: https://example.org/c.png]"]]]]],
        ),
        ("[nowhere](page.html) [there](#x)", [["p", ["nowhere there"]]]),
        (
            "https://example.org/x and a@example.org",
            [
                [
                    "p",
                    [
                        ["a https://example.org/x", ["https://example.org/x"]],
                        " and ",
                        ["a mailto:a@example.org", ["a@example.org"]],
                    ],
                ]
            ],
        ),
        ("&copy; &nbsp;|", [["p", ["&copy; |"]]]),
        ("&#0; &#xD800; &#1114112; &#99999999;", [["p", ["\ufffd \ufffd \ufffd &#99999999;"]]]),
    ],
)
def test_where_the_page_has_its_own_way(modules: CallModule, text: str, expected: object) -> None:
    (found,) = shown(modules, [text])
    assert _as_lists(found) == expected


def _as_lists(outline: Outline) -> list[object]:
    return [each if isinstance(each, str) else [each[0], _as_lists(each[1])] for each in outline]


@pytest.mark.parametrize(
    ("unfinished", "kind"),
    [
        ("text\n\n```python\nprint(1)\nfor x in", "pre"),
        ("```", "pre"),
        ("~~~js\nlet a = `", "pre"),
        ("- one\n- tw", "ul"),
        ("| a | b |\n|---|---|\n| 1 |", "table"),
        ("# Head", "h1"),
        ("> quo", "blockquote"),
        ("**bo", "p"),
        ("a [link](https://exam", "p"),
        ("1. one\n\n   ```\n   x", "ol"),
    ],
)
def test_what_is_still_being_written_looks_like_what_it_will_be(
    modules: CallModule, unfinished: str, kind: str
) -> None:
    (outline,) = shown(modules, [unfinished])
    assert outline[-1][0] == kind


def test_an_answer_that_grows_ends_as_if_it_had_come_at_once(modules: CallModule) -> None:
    text = "\n\n".join(SAMPLES[:24])
    grown, whole = modules(
        "markdown",
        """async ({ Markdown }, text) => {
          const { h, render } = await import("/page/vendor/preact.js");
          const [growing, whole] = [document.createElement("div"), document.createElement("div")];
          for (let length = 0; length < text.length; length += 7) {
            render(h(Markdown, { text: text.slice(0, length) }), growing);
          }
          render(h(Markdown, { text }), growing);
          render(h(Markdown, { text }), whole);
          return [growing.innerHTML, whole.innerHTML];
        }""",
        text,
    )
    assert grown == whole


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "repeated", "times", "after"),
    [
        ("", "> ", 5_000, "x"),
        ("", "[", 20_000, ""),
        ("", "![", 20_000, ""),
        ("", "](", 50_000, ""),
        ("", "[a](b", 20_000, ""),
        ("[a](", "(", 50_000, ""),
        ("", "- ", 5_000, "x"),
        ("", "1. ", 5_000, "x"),
        ("", "*a ", 30_000, ""),
        ("", "**a", 30_000, ""),
        ("", "_a__b", 20_000, ""),
        ("", "a_", 60_000, ""),
        ("", "a.", 90_000, "@"),
        ("", "a." * 2_400 + "@\n\n", 40, ""),
        ("", "!", 100_000, ""),
        ("", "<", 100_000, ""),
        ("", "<!--", 20_000, ""),
        ("", "<div>\n\n", 20_000, ""),
        ("", "~~a", 20_000, ""),
        ("", "`", 50_000, "a"),
        ("", "```\n", 30_000, ""),
        ("", "| a ", 20_000, ""),
        ("|a\n|-\n", "|b\n", 20_000, ""),
        ("", "- a\n  ", 20_000, ""),
        ("", "> a\n\n", 20_000, ""),
        ("", "&#", 50_000, ""),
        ("", "\\", 50_000, ""),
        ("", "word ", 50_000, "and more than 200 kB of it"),
        ("", "\n", 190_000, "x"),
    ],
)
def test_nothing_takes_long_or_fails(time_of: TimeModule, before: str, repeated: str, times: int, after: str) -> None:
    assert time_of("markdown", RENDERED, [before, repeated, times, after]) < 2


def test_text_that_is_too_much_to_parse_is_still_all_there(modules: CallModule) -> None:
    texts = ["> " * 5_000 + "**x**", "**x** " * 40_000, "**a.b** " * 2_000]
    for text, outline in zip(texts, shown(modules, texts), strict=True):
        assert _as_lists(outline) == [["p", [text.strip()]]]


def test_one_paragraph_that_is_too_long_leaves_the_others_alone(modules: CallModule) -> None:
    (outline,) = shown(modules, ["**a**\n\n" + "b* " * 5_000 + "\n\n**c**"])
    assert _as_lists(outline)[0] == ["p", [["strong", ["a"]]]]
    assert _as_lists(outline)[2] == ["p", [["strong", ["c"]]]]
