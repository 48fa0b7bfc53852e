"""Compiles a schema in a process of its own: `python -m panacea.engine.grammar_check`, JSON in and JSON out.

A hostile schema can make the compiler run for hours, or recurse until the stack overflows and the process dies. This
process does nothing else, and its CPU time and memory are limited. A schema that passes compiles in the engine in
about the same time, because the time to compile depends little on the vocabulary.
"""

import json
import resource
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

from panacea.engine.grammar import FIELD, compile_schema
from panacea.errors import RequestError

CPU_LIMIT_S = 2
MEMORY_LIMIT_BYTES = 2 << 30
_STACK_BYTES = 16 << 20


class _Bytes:
    """A vocabulary of all bytes and one end-of-sequence token."""

    eos_token_id = 256
    bos_token_id = None
    tokens: Sequence[bytes] = [*(bytes([byte]) for byte in range(256)), b"<end>"]
    special_token_ids = (256,)

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def error_of(schema: str) -> str | None:
    """The reason why answers cannot follow this schema; None if they can."""
    try:
        from llguidance import LLTokenizer, TokenizerWrapper  # noqa: PLC0415 (it may be missing, which is reported)
    except ImportError:
        return f"{FIELD}: structured output is not available on this server: llguidance is not installed"
    try:
        compile_schema(LLTokenizer(TokenizerWrapper(_Bytes())), schema)
    except RequestError as error:
        return str(error)
    return None


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    schema = sys.stdin.read()
    threading.stack_size(_STACK_BYTES)
    thread = threading.Thread(target=lambda: print(json.dumps({"error": error_of(schema)})))  # noqa: T201 (the result)
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
