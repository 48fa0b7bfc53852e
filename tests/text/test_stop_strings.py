"""Stop strings in pieces of text are those that a search of the whole text finds."""

from hypothesis import example, given
from hypothesis import strategies as st

from panacea.text.stop_strings import StopStrings

letters = st.text("ab", max_size=30)
stops = st.lists(st.text("ab", min_size=1, max_size=6), max_size=4)


def naive(text: str, stops: list[str]) -> tuple[str, bool]:
    """Cut at the stop string that is complete first; the longest of several."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


@given(st.lists(letters, max_size=8), stops)
@example(["a", "b"], ["b", "ab"])
@example(["aab"], ["ab"])
def test_pieces_give_what_a_search_of_the_whole_gives(pieces: list[str], stops: list[str]) -> None:
    finder = StopStrings(stops)
    shown, stopped = "", False
    for piece in pieces:
        text, stopped = finder.push(piece)
        shown += text
        if stopped:
            break
    assert (shown + finder.flush(), stopped) == naive("".join(pieces), stops)


@given(letters, stops)
def test_only_a_possible_beginning_of_a_stop_string_is_held_back(text: str, stops: list[str]) -> None:
    finder = StopStrings(stops)
    shown, stopped = finder.push(text)
    if not stopped:
        beginnings = [stop[:length] for stop in stops for length in range(1, len(stop))]
        held = max((len(beginning) for beginning in beginnings if text.endswith(beginning)), default=0)
        assert shown == text[: len(text) - held]


def test_without_stop_strings_nothing_is_held_back() -> None:
    assert StopStrings([]).push("anything") == ("anything", False)


def test_a_long_stop_string_takes_linear_time() -> None:
    finder = StopStrings(["a" * 999 + "b"])
    assert finder.push("a" * 200_000) == ("a" * (200_000 - 999), False)
