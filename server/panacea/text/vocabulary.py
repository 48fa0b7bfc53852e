"""The bytes of single tokens, for log probabilities."""

import json
import re
from functools import cached_property

from tokenizers import Tokenizer

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class Vocabulary:
    """The bytes of each token, and which tokens are special."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._added = {key: token.content for key, token in tokenizer.get_added_tokens_decoder().items()}
        self.special_ids = frozenset(
            key for key, token in tokenizer.get_added_tokens_decoder().items() if token.special
        )
        # The decoder is GPT-2's, with one printable character per byte, or SentencePiece's.
        decoder = json.dumps(json.loads(tokenizer.to_str())["decoder"])
        self._alphabet = _byte_alphabet() if '"ByteLevel"' in decoder else None

    @cached_property
    def longest_token(self) -> int:
        """Most characters of a text that one token stands for, if the tokenizer shortens no text."""
        # Byte-level vocabularies spell each byte as one character, and SentencePiece each character as itself.
        return max(map(len, self._tokenizer.get_vocab(with_added_tokens=True)), default=1)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that this token adds to a text. Several tokens may share a character. Empty for unknown ids."""
        if token_id in self._added:
            return self._added[token_id].encode()
        token = self._tokenizer.id_to_token(token_id)
        if token is None:
            return b""
        if self._alphabet is not None and all(char in self._alphabet for char in token):
            return bytes(self._alphabet[char] for char in token)
        if byte := _BYTE_TOKEN.fullmatch(token):
            return bytes([int(byte[1], 16)])
        return token.replace("\u2581", " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """Maps GPT-2's printable characters to bytes. A printable byte is itself, others count up from U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + index): byte for index, byte in enumerate(others)})
    return alphabet
