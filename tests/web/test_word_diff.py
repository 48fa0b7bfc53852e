"""What two texts share, against a longest common subsequence computed in Python."""

import itertools
import random
import unicodedata
from collections.abc import Sequence

import pytest

from tests.web.modules import CallModule, TimeModule

Parts = list[tuple[str, str]]
"""Kind and text of each."""

SPACES = set("\t\n\v\f\r \u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff") | {
    chr(code) for code in range(0x2000, 0x200B)
}


def is_of_words(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNM" or character in "_'\u2019-"


def has_word(text: str) -> bool:
    return any(unicodedata.category(character)[0] in "LN" for character in text)


def words_of(text: str) -> list[str]:
    """Runs of letters, digits, apostrophes and hyphens; runs of spaces; everything else alone."""
    result: list[str] = []
    before = None
    for character in text:
        kind = "word" if is_of_words(character) else "space" if character in SPACES else None
        if kind is not None and kind == before:
            result[-1] += character
        else:
            result.append(character)
        before = kind
    return result


def longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of a longest common subsequence."""
    row = [0] * (len(b) + 1)
    for left in a:
        above = row
        row = [0]
        for index, right in enumerate(b):
            row.append(above[index] + 1 if left == right else max(above[index + 1], row[index]))
    return row[-1]


def changes_in(parts: Parts) -> list[tuple[str, str]]:
    """What was removed and what was added, between each two parts that are the same."""
    changes = [("", "")]
    for kind, text in parts:
        removed, added = changes[-1]
        if kind == "same":
            changes.append(("", ""))
        else:
            changes[-1] = (removed + text, added) if kind == "removed" else (removed, added + text)
    return changes


def assert_is_a_change(before: str, after: str, parts: Parts) -> None:
    """`parts` make both texts, and read as phrases."""
    assert "".join(text for kind, text in parts if kind != "added") == before
    assert "".join(text for kind, text in parts if kind != "removed") == after
    assert all(text for _, text in parts), "none is empty"
    for (kind, _), (following, _) in itertools.pairwise(parts):
        assert kind != following, "neighbours are one"
        assert (kind, following) != ("added", "removed"), "what goes comes first"
    assert all(has_word(text) for kind, text in parts[1:-1] if kind == "same"), "a comma alone is not worth a break"


def assert_keeps_most(before: str, after: str, parts: Parts) -> None:
    """No common subsequence is longer than what was kept, counting the spaces and commas that were given to changes."""
    kept = sum(len(words_of(text)) for kind, text in parts if kind == "same")
    given = sum(longest_common(words_of(removed), words_of(added)) for removed, added in changes_in(parts))
    assert kept + given == longest_common(words_of(before), words_of(after)), (before, after, parts)


def compared(modules: CallModule, pairs: list[tuple[str, str]]) -> list[Parts]:
    found = modules(
        "word_diff",
        """({ wordDiff }, pairs) =>
          pairs.map(([before, after]) => wordDiff(before, after).map(({ kind, text }) => [kind, text]))""",
        pairs,
    )
    return [[(kind, text) for kind, text in parts] for parts in found]


@pytest.mark.parametrize(
    "vocabulary",
    [
        ["a", "b", "c", " ", " ", " "],
        ["the", "knife", "sharpen", " ", " ", " ", ", ", ". ", "\n", "\n\n", "- "],
        [
            "naïve",
            "don't",
            "l\u2019eau",
            "e\u0301t\u00e9",
            "北京",
            "🔪",
            "👩‍👩‍👧",
            "well-known",
            "x_1",
            " ",
            "\u00a0",
            "—",
            "'",
            "-",
            "٣",
        ],
    ],
)
def test_both_texts_are_there_and_as_many_words_are_kept_as_can_be(modules: CallModule, vocabulary: list[str]) -> None:
    generator = random.Random(len(vocabulary))

    def text() -> str:
        return "".join(generator.choices(vocabulary, k=generator.randint(0, 30)))

    def edited(text: str) -> str:
        words = words_of(text)
        for _ in range(generator.randint(0, 4)):
            place = generator.randint(0, len(words))
            words[place : place + generator.randint(0, 3)] = generator.choices(vocabulary, k=generator.randint(0, 3))
        return "".join(words)

    pairs = [(text(), text()) for _ in range(200)]
    pairs += [(each, edited(each)) for each in (text() for _ in range(200))]
    for (before, after), parts in zip(pairs, compared(modules, pairs), strict=True):
        assert_is_a_change(before, after, parts)
        assert_keeps_most(before, after, parts)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "", []),
        ("", "all new", [("added", "all new")]),
        ("all gone", "", [("removed", "all gone")]),
        ("the same.", "the same.", [("same", "the same.")]),
        ("Boil the egg.", "Boil an egg.", [("same", "Boil "), ("removed", "the"), ("added", "an"), ("same", " egg.")]),
        ("don't", "do", [("removed", "don't"), ("added", "do")]),
        ("naïve café", "naïve cafe", [("same", "naïve "), ("removed", "café"), ("added", "cafe")]),
        ("one two", "six ten", [("removed", "one two"), ("added", "six ten")]),
        ("a 🔪!", "a 🔨!", [("same", "a "), ("removed", "🔪"), ("added", "🔨"), ("same", "!")]),
        ("x y", "x  y", [("same", "x"), ("removed", " "), ("added", "  "), ("same", "y")]),
    ],
)
def test_changes_read_as_phrases(modules: CallModule, before: str, after: str, expected: Parts) -> None:
    assert compared(modules, [(before, after)]) == [expected]


@pytest.mark.slow
def test_words_are_runs_of_letters_digits_apostrophes_and_hyphens_of_any_script(modules: CallModule) -> None:
    generator = random.Random(3)
    alphabet = [
        chr(code) for code in (*range(0x20, 0x250), *range(0x300, 0x320), *range(0x2000, 0x2070), 0x1F52A, 0x5317)
    ]
    texts = ["".join(generator.choices(alphabet, k=40)) for _ in range(300)]
    texts += ["I don't — l\u2019été, 3.5 km: 北京 e\u0301 \t\n x_y well-known 🔪👩‍👩‍👧"]
    found = modules("word_diff", "({ words }, texts) => texts.map(words)", texts)
    assert found == [words_of(text) for text in texts]


@pytest.mark.slow
def test_very_long_texts_are_compared_in_no_time(modules: CallModule, time_of: TimeModule) -> None:
    generator = random.Random(4)
    vocabulary = [f"word{index}" for index in range(500)]

    def text(count: int) -> str:
        return " ".join(generator.choices(vocabulary, k=count))

    long, other = text(60_000), text(60_000)
    middle = long.replace(" word7 ", " word8 ", 1)
    pairs = [
        (text(950), text(950)),
        (long, other),
        (long, long + " more"),
        (long, middle),
        (long, ""),
        ("x" * 10**6, long),
    ]
    comparing = "({ wordDiff }, [before, after]) => { wordDiff(before, after); }"
    seconds = [time_of("word_diff", comparing, pair) for pair in pairs]
    assert max(seconds) < 1.5, seconds
    for (before, after), parts in zip(pairs, compared(modules, pairs), strict=True):
        assert_is_a_change(before, after, parts)
    assert compared(modules, pairs[3:4]) == [
        [
            ("same", long.split(" word7 ", 1)[0] + " "),
            ("removed", "word7"),
            ("added", "word8"),
            ("same", " " + long.split(" word7 ", 1)[1]),
        ]
    ]
