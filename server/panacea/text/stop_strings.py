"""Finds the strings that end an answer while it streams."""

from collections.abc import Sequence


class StopStrings:
    """Finds the stop string that is completed first, however the text is cut into pieces.

    Text is held back only while it may be the beginning of a stop string. If one character completes two stop strings,
    the longer one counts. The time is linear in the text, by the automaton of Knuth, Morris and Pratt (1977).
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """No element of `stops` may be empty."""
        self._stops = tuple(stops)
        self._fallbacks = tuple(_fallbacks(stop) for stop in stops)
        self._matched = [0] * len(self._stops)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """The text that may be shown now, and whether a stop string ended it. Do not push after it did."""
        buffer = self._held + text
        for position, char in enumerate(text, start=len(self._held) + 1):
            longest = self._advance(char)
            if longest:
                self._held = ""
                return buffer[: position - longest], True
        visible = len(buffer) - max(self._matched, default=0)
        self._held = buffer[visible:]
        return buffer[:visible], False

    def flush(self) -> str:
        """The text held back. Call it after the last text."""
        held, self._held = self._held, ""
        return held

    def _advance(self, char: str) -> int:
        """Length of the longest stop string that `char` completes; 0 if it completes none."""
        longest = 0
        for index, (stop, fallbacks) in enumerate(zip(self._stops, self._fallbacks, strict=True)):
            matched = self._matched[index]
            while matched and stop[matched] != char:
                matched = fallbacks[matched - 1]
            matched += stop[matched] == char
            self._matched[index] = matched
            if matched == len(stop):
                longest = max(longest, matched)
        return longest


def _fallbacks(stop: str) -> list[int]:
    """For each prefix of `stop`, the length of its longest proper prefix that is also its suffix."""
    table = [0] * len(stop)
    matched = 0
    for index in range(1, len(stop)):
        while matched and stop[matched] != stop[index]:
            matched = table[matched - 1]
        matched += stop[matched] == stop[index]
        table[index] = matched
    return table
