"""Incremental detokenization: text from tokens, one token at a time."""

from collections.abc import Container, Sequence
from itertools import islice

from tokenizers import Tokenizer

_REPLACEMENT = "\ufffd"

_LONGEST_TAIL = 3
"""Maximum number of bytes, and so of tokens, of an unfinished UTF-8 character. Some decoders show each as one
U+FFFD."""

_WINDOW = 32
_CONTEXT = 16
"""Tokens kept when a window full of broken characters is cut. Each has at least one byte. 3 find the next character's
start again, and 3 times 3 cover the characters that are still held back."""


class Detokenizer:
    """Decodes one answer incrementally. The results of `push` and `flush`, joined, equal the decoded whole answer.

    A token's text depends on its neighbours (a leading space, a character spread over tokens). So `push` decodes a
    window that begins with the tokens of the last finished character. The window is a few tokens long, so `push` takes
    constant time. Text is held back while its last character may be unfinished.
    """

    def __init__(self, tokenizer: Tokenizer, skipped: Container[int], context: Sequence[int] = ()) -> None:
        """`skipped` are tokens without text (special tokens).

        The text continues `context`. Without a context it begins, and SentencePiece's decoder drops its first space.
        If the context ends inside a character, because its token ids were cut there, the text begins too.
        """
        self._tokenizer = tokenizer
        self._skipped = skipped
        self._window = self._last_character(context)
        self._finished = len(self._window)
        """Number of leading tokens of the window whose last character is finished."""
        self._given = len(self._decode())
        """Number of characters of the window's text that have been returned."""

    def push(self, token_id: int) -> str:
        """The text that is complete with this token: usually the token's own text."""
        if token_id in self._skipped:
            return ""
        self._window.append(token_id)
        text = self._decode()
        held = _unfinished(text)
        if held and len(self._window) - self._finished <= _LONGEST_TAIL:
            # SentencePiece's decoder shows finished neighbours of an unfinished character as broken too.
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
        """The rest of the text. Call it after the last token."""
        rest = self._decode()[self._given :]
        self._given += len(rest)
        return rest

    def _last_character(self, context: Sequence[int]) -> list[int]:
        """The shortest end of `context` that decodes to finished characters. Empty if there is none."""
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
