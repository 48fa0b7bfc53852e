"""Tries a schema out, for a process that may be killed: `panacea.text.worker`.

A hostile schema can make the compiler run for hours, or recurse until the stack overflows and the process dies. A
schema that passes compiles in the engine in about the same time, because the time to compile depends little on the
vocabulary.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from panacea.engine.grammar import FIELD, compile_schema
from panacea.errors import RequestError

if TYPE_CHECKING:
    from llguidance import LLTokenizer

STACK_BYTES = 16 << 20
"""Stack of the thread that tries a schema out: a quarter of what the engine has."""


class _Bytes:
    """A vocabulary of all bytes and one end-of-sequence token."""

    eos_token_id = 256
    bos_token_id = None
    tokens: Sequence[bytes] = [*(bytes([byte]) for byte in range(256)), b"<end>"]
    special_token_ids = (256,)

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


@cache
def byte_tokenizer() -> "LLTokenizer | None":
    """The vocabulary that schemas are tried with; None without llguidance."""
    try:
        from llguidance import LLTokenizer, TokenizerWrapper  # noqa: PLC0415 (it may be missing, which is reported)
    except ImportError:
        return None
    return LLTokenizer(TokenizerWrapper(_Bytes()))


def error_of(schema: str) -> str | None:
    """The reason why answers cannot follow this schema; None if they can."""
    tokenizer = byte_tokenizer()
    if tokenizer is None:
        return f"{FIELD}: structured output is not available on this server: llguidance is not installed"
    try:
        compile_schema(tokenizer, schema)
    except RequestError as error:
        return str(error)
    return None
