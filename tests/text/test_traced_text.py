"""Traced text behaves as `str`, and knows who wrote each of its characters."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panacea.text.chat_template import ChatMessage, ChatTemplate
from panacea.text.traced_text import MESSAGE, MIXED, TEMPLATE, TracedText, computed, origins_of, plain

OURS, THEIRS = "ab \n.", "xy\t-"
"""Letters of the template and letters of messages, so that the right origin shows in the letter."""

Texts = st.lists(st.tuples(st.sampled_from((OURS, THEIRS)), st.text("01234", max_size=3)), max_size=4)


def joined(runs: Sequence[tuple[str, str]]) -> TracedText:
    whole = TracedText("", TEMPLATE)
    for letters, digits in runs:
        text = "".join(letters[int(digit) % len(letters)] for digit in digits)
        whole += TracedText(text, TEMPLATE if letters is OURS else MESSAGE)
    return whole


texts = Texts.map(joined)
OPERATIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "add": lambda a, b, _: a + b,
    "add to": lambda a, b, _: plain(a) + b,
    "times": lambda a, _, n: 2 * a * n,
    "index": lambda a, _, n: a[n] if -len(a) <= n < len(a) else a,
    "slice": lambda a, _, n: a[n:],
    "backwards": lambda a, _, n: a[n::-1],
    "letters": lambda a, *_: list(a),
    "join": lambda a, b, _: a.join([b, a, b]),
    "strip": lambda a, *_: a.strip(),
    "strip some": lambda a, b, _: a.strip(b),
    "lstrip": lambda a, *_: a.lstrip(),
    "rstrip": lambda a, *_: a.rstrip(),
    "split": lambda a, *_: a.split(),
    "split at": lambda a, b, n: a.split(b or ".", n),
    "split some": lambda a, _, n: a.split(None, n),
    "rsplit": lambda a, *_: a.rsplit(),
    "rsplit at": lambda a, b, n: a.rsplit(b or ".", n),
    "rsplit some": lambda a, _, n: a.rsplit(None, n),
    "lines": lambda a, *_: a.splitlines(),
    "whole lines": lambda a, *_: a.splitlines(True),
    "partition": lambda a, b, _: list(a.partition(b or ".")),
    "rpartition": lambda a, b, _: list(a.rpartition(b or ".")),
    "replace": lambda a, b, n: a.replace(b or ".", a, n),
    "removeprefix": lambda a, b, _: a.removeprefix(b),
    "removesuffix": lambda a, b, _: a.removesuffix(b),
    "upper": lambda a, *_: a.upper(),
    "lower": lambda a, *_: a.lower(),
    "title": lambda a, *_: a.title(),
    "capitalize": lambda a, *_: a.capitalize(),
    "swapcase": lambda a, *_: a.swapcase(),
    "casefold": lambda a, *_: a.casefold(),
}
COMPUTED: dict[str, Callable[[Any, Any, Any], Any]] = {
    "center": lambda a, _, n: a.center(n + 9, "."),
    "ljust": lambda a, _, n: a.ljust(n + 9),
    "rjust": lambda a, _, n: a.rjust(n + 9),
    "zfill": lambda a, *_: a.zfill(9),
    "tabs": lambda a, *_: a.expandtabs(3),
    "translate": lambda a, *_: a.translate({"x": "yy"}),
    "percent": lambda a, b, _: a.replace("a", "%s") % ((b,) * a.count("a")),
    "format": lambda a, _, n: f"{a:>{n + 9}}",
    "replace nothing": lambda a, b, _: a.replace("", b),
}


@pytest.mark.parametrize("name", OPERATIONS)
@given(a=texts, b=texts, n=st.integers(-1, 3))
@settings(max_examples=40)
def test_each_character_keeps_its_origin(name: str, a: TracedText, b: TracedText, n: int) -> None:
    result = OPERATIONS[name](a, b, n)
    assert result == OPERATIONS[name](plain(a), plain(b), n)
    if name == "add to":
        assert origins_of(result) == bytes(len(a)) + origins_of(b)
        return
    for text in result if isinstance(result, list) else [result]:
        assert origins_of(text) == bytes(TEMPLATE if char.lower() in OURS else MESSAGE for char in text)


@pytest.mark.parametrize("name", COMPUTED)
@given(a=texts, b=texts, n=st.integers(-1, 3))
@settings(max_examples=20)
def test_other_operations_keep_the_common_origin_or_none(name: str, a: TracedText, b: TracedText, n: int) -> None:
    result = COMPUTED[name](a, b, n)
    assert result == COMPUTED[name](plain(a), plain(b), n)
    # Fillings of spaces belong to whoever wrote the rest.
    for char, origin in zip(plain(result), origins_of(result), strict=True):
        assert origin != (TEMPLATE if char in THEIRS else MESSAGE if char in "ab" else None)


@given(st.text(max_size=6))
def test_changes_of_case_are_traced_for_any_letters(text: str) -> None:
    traced = TracedText(text, MESSAGE)
    for change in (str.lower, str.upper, str.title, str.capitalize, str.casefold, str.swapcase):
        result = getattr(traced, change.__name__)()
        assert result == change(text)
        assert origins_of(result) == bytes((MESSAGE,)) * len(result)


def test_it_passes_for_a_plain_text() -> None:
    text = TracedText("a b", MESSAGE)
    assert (text == "a b", hash(text), {"a b": 1}[text], "b" in text) == (True, hash("a b"), 1, True)
    assert type(plain(text)) is str
    assert origins_of("plain") == bytes(5)
    with pytest.raises(TypeError):
        text + 1  # type: ignore[operator]


def test_what_is_computed_of_texts_has_their_common_origin() -> None:
    ours, theirs = TracedText("a", TEMPLATE), TracedText("x", MESSAGE)
    assert origins_of(computed("?", 1, None, {ours: [ours]})) == bytes((TEMPLATE,))
    assert origins_of(computed("?", (theirs, 2.5))) == bytes((MESSAGE,))
    assert origins_of(computed("?", {ours: theirs})) == bytes((MIXED,))
    assert origins_of(computed("?", theirs, object())) == bytes((MIXED,))


WRITTEN: dict[str, str] = {
    "{{ 'a' ~ 1 ~ m.content ~ 'b' }}": "aaxxb",
    "{{ 'a' + m.content | trim + 'b' }}": "axxb",
    "a{{ m.content }}b{{ m.role }}": "axxbaaaa",
    "{% set t %}a{{ m.content }}{% endset %}{{ t }}": "axx",
    "{% macro f(t) %}a{{ t }}{{ caller() }}{% endmacro %}{% call f(m.content) %}b{% endcall %}": "axxb",
    "{% filter upper %}a{{ m.content }}{% endfilter %}": "axx",
    "{{ ['a', m.content, 'b'] | join(', ') }}{{ ['a', m.content] | join }}": "aaaxxaabaxx",
    "{{ {'a': m.content} | tojson }}": "aaaaaaxxxxa",
    '{{ [m.content, "a"] | tojson(indent=1) }}': "aaaxxxxaaaaaaaa",
    "{{ m.content | indent(2, true) }}{{ m.content | wordwrap(1) }}": "xxxxxxx",
    "{{ ('a', 'b') | last }}{{ ['a', 'b'][0] }}{{ {'a': 'b'}['a'] }}{{ 'a' if m.content else '' }}": "aaaa",
    "{{ namespace(a='a').a }}{{ dict(a=m.content).a }}{{ cycler('a', m.content).next() }}": "axxa",
    "{{ 'a%s' % 'b' }}{{ 'a{}'.format('b') }}{{ '{}'.format(1) }}": "aaaaa",
    "{{ '%s' % m.content }}{{ 'a{}'.format(m.content) }}": "?????",
    "{{ m.content | list | join }}{{ m.content | reverse }}{{ m.content | first }}{{ m.content | length }}": "xxxxxa",
    "{% for part in m.content %}{{ part }}{{ loop.index }}{% endfor %}": "xaxa",
    "{{ (messages | map(attribute='content') | list)[0] }}{{ bos }}": "xx",
}


@pytest.mark.parametrize("source", WRITTEN)
def test_a_template_writes_its_own_text_and_that_of_messages(source: str) -> None:
    template = ChatTemplate(source.replace("m.", "messages[0]."), {})
    rendered = template.render_traced([ChatMessage("user", "xy")])
    assert "".join({TEMPLATE: "a", MESSAGE: "x", MIXED: "?"}[origin] for origin in origins_of(rendered)) == (  # type: ignore[index]
        WRITTEN[source].replace("b", "a")
    )
