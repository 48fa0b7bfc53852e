"""Text from tokens, one at a time."""

from collections.abc import Container, Sequence
from itertools import islice

from tokenizers import Tokenizer

_REPLACEMENT = "\ufffd"

_LONGEST_TAIL = 3
"""Most bytes, and so most tokens, of an unfinished UTF-8 character; some decoders show each as one U+FFFD."""

_WINDOW = 32
_CONTEXT = 16
"""Tokens kept when a window full of broken characters is cut. Each has a byte or more: 3 to find the next character's
start again, and 3 times 3 for the characters that are still held back."""


class Detokenizer:
    """Decodes one answer incrementally: all that `push` and `flush` return is what decoding the whole answer gives.

    A token's text depends on its neighbours (a leading space, a character spread over tokens), so a window is decoded
    that begins with the tokens of the last finished character. It is a handful of tokens long, so a push takes constant
    time. Text is held back while its last character may be unfinished.
    """

    def __init__(self, tokenizer: Tokenizer, skipped: Container[int], context: Sequence[int] = ()) -> None:
        """`skipped` are tokens that are no text (special tokens).

        Behind `context` the text goes on, instead of beginning: SentencePiece's decoder drops a text's first space.
        Behind a context that ends within a character (token ids may be cut there) it begins anew.
        """
        self._tokenizer = tokenizer
        self._skipped = skipped
        self._window = self._last_character(context)
        self._finished = len(self._window)
        """How many of the window's tokens end in a finished character."""
        self._given = len(self._decode())
        """How many characters of the window's text were returned."""

    def push(self, token_id: int) -> str:
        """The text that this token finishes; often all of its own."""
        if token_id in self._skipped:
            return ""
        self._window.append(token_id)
        text = self._decode()
        held = _unfinished(text)
        if held and len(self._window) - self._finished <= _LONGEST_TAIL:
            # Until the character is finished, SentencePiece's decoder shows its finished neighbours as broken too.
            return ""
        settled = text[self._given : len(text) - held]
        self._given += len(settled)
        if not held:
            self._window = self._window[self._finished :]
            self._finished = len(self._window)
            self._given = len(self._decode())
        elif len(self._window) > _WINDOW:
            self._window = self._window[-_CONTEXT:]
            self._finished = 0
            self._given = len(self._decode()) - held
        return settled

    def flush(self) -> str:
        """The rest of the text, when no token will follow."""
        rest = self._decode()[self._given :]
        self._given += len(rest)
        return rest

    def _last_character(self, context: Sequence[int]) -> list[int]:
        """The fewest last tokens of `context` that end in a finished character; none if they do not."""
        shown = (token_id for token_id in reversed(context) if token_id not in self._skipped)
        window: list[int] = []
        for token_id in islice(shown, _LONGEST_TAIL + 1):
            window.insert(0, token_id)
            if not _unfinished(self._tokenizer.decode(window, skip_special_tokens=False)):
                return window
        return []

    def _decode(self) -> str:
        return self._tokenizer.decode(self._window, skip_special_tokens=False)


def _unfinished(text: str) -> int:
    tail = text[-_LONGEST_TAIL:]
    return len(tail) - len(tail.rstrip(_REPLACEMENT))
