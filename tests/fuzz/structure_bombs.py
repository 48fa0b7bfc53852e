"""Bodies that are small and cost much: 4 MB of structure. Time follows the number of values, and not bytes."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz.values import CHAT, COMPLETIONS, DETOKENIZE, TOKENIZE

SIZE_BYTES = (4 << 20) - 1000
_PARTS = b'{"messages":[{"role":"user","content":['
_PART = b'{"type":"text","text":""}'
_SCHEMA = b'"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":{"enum":['
_CHAT = b'{"messages":[{"role":"user","content":"a"}],"max_tokens":1,'


@dataclass(frozen=True)
class StructureBomb:
    """A kind of bomb, made anew for each request."""

    name: str
    path: str
    body: Callable[[], bytes]


def _repeated(before: bytes, item: bytes, after: bytes, size_bytes: int = SIZE_BYTES) -> Callable[[], bytes]:
    return lambda: before + b",".join([item] * (size_bytes // (len(item) + 1))) + after


def _numbered(before: bytes, item: bytes, after: bytes, count: int) -> Callable[[], bytes]:
    return lambda: before + b",".join(item % number for number in range(count)) + after


def _nested(opening: bytes, closing: bytes, depth: int) -> Callable[[], bytes]:
    return lambda: _CHAT + b'"tools":' + opening * depth + closing * depth + b"}"


BOMBS: tuple[StructureBomb, ...] = (
    StructureBomb("empty lists", CHAT, _repeated(_CHAT + b'"tools":[', b"[]", b"]}")),
    StructureBomb("empty objects", CHAT, _repeated(_CHAT + b'"tools":[', b"{}", b"]}")),
    StructureBomb("strings", CHAT, _repeated(_CHAT + b'"tools":[', b'""', b"]}")),
    StructureBomb("escaped strings", CHAT, _repeated(_CHAT + b'"tools":[', b'"\\\\\\""', b"]}")),
    StructureBomb("escapes", CHAT, lambda: _CHAT + b'"user":"' + b"\\u0041" * (SIZE_BYTES // 6) + b'"}'),
    StructureBomb("white space", CHAT, lambda: _CHAT + b" " * SIZE_BYTES + b'"n":1}'),
    StructureBomb("nesting", CHAT, _nested(b"[", b"]", 100_000)),
    StructureBomb("nested objects", CHAT, _nested(b'{"a":', b"}", 100_000)),
    StructureBomb("names", CHAT, _numbered(_CHAT, b'"a%d":1', b"}", 350_000)),
    StructureBomb("as many names as may be", CHAT, _numbered(_CHAT, b'"a%d":1', b"}", 130_000)),
    StructureBomb("one name again and again", CHAT, _repeated(_CHAT, b'"a":1', b"}")),
    StructureBomb("empty parts", CHAT, _repeated(_PARTS, _PART, b"]}]}")),
    StructureBomb("as many parts as may be", CHAT, _repeated(_PARTS, _PART, b"]}]}", 1_000_000)),
    StructureBomb("messages", CHAT, _repeated(b'{"messages":[', b'{"role":"user","content":""}', b"]}")),
    StructureBomb("wrong parts", CHAT, _repeated(_PARTS, b"0", b"]}]}")),
    StructureBomb("wrong parts within the limit", CHAT, _repeated(_PARTS, b"0", b"]}]}", 500_000)),
    StructureBomb("biases", CHAT, _numbered(_CHAT + b'"logit_bias":{', b'"%d":1', b"}}", 300_000)),
    StructureBomb("stop strings", CHAT, _repeated(_CHAT + b'"stop":[', b'"a"', b"]}")),
    StructureBomb("preference", CHAT, _numbered(_CHAT + b'"preference":{', b'"%d":1', b"}}", 300_000)),
    StructureBomb("a schema's names", CHAT, _numbered(_CHAT + _SCHEMA, b'"%d"', b"]}}}}", 130_000)),
    StructureBomb("digits", COMPLETIONS, lambda: b'{"prompt":[' + b"1" * SIZE_BYTES + b"]}"),
    StructureBomb("token ids", COMPLETIONS, _repeated(b'{"max_tokens":1,"prompt":[', b"1", b"]}")),
    StructureBomb("wrong token ids", COMPLETIONS, _repeated(b'{"prompt":[1,', b"1.5", b"]}", 1_000_000)),
    StructureBomb("prompts", COMPLETIONS, _repeated(b'{"prompt":[', b'"a"', b"]}")),
    StructureBomb("lists of token ids", COMPLETIONS, _repeated(b'{"prompt":[', b"[1]", b"]}")),
    StructureBomb("text", TOKENIZE, lambda: b'{"prompt":"' + b"a b, " * (SIZE_BYTES // 5) + b'"}'),
    StructureBomb("one word", TOKENIZE, lambda: b'{"prompt":"' + b"a" * SIZE_BYTES + b'"}'),
    StructureBomb("tokens", DETOKENIZE, _repeated(b'{"tokens":[', b"50", b"]}")),
    StructureBomb("tokens within the limit", DETOKENIZE, _repeated(b'{"tokens":[', b"50", b"]}", 700_000)),
    StructureBomb("lists of lists", CHAT, _repeated(_CHAT + b'"tools":[', b"[" * 100 + b"]" * 100, b"]}")),
    StructureBomb("lists within the limit", CHAT, _repeated(_CHAT + b'"tools":[', b"[]", b"]}", 190_000)),
    StructureBomb("different names within the limit", CHAT, _numbered(_CHAT, b'"%x":1', b"}", 65_000)),
    StructureBomb("one name twice at the end", CHAT, _numbered(_CHAT, b'"%x":1', b',"0":1}', 60_000)),
    StructureBomb("metadata", CHAT, _numbered(_CHAT + b'"metadata":{', b'"%x":""', b"}}", 30_000)),
    StructureBomb("variables", CHAT, _numbered(_CHAT + b'"chat_template_kwargs":{', b'"%x":[]', b"}}", 30_000)),
    StructureBomb("fractions", CHAT, _repeated(_CHAT + b'"chat_template_kwargs":{"a":[', b"0.123456789012345", b"]}}")),
    StructureBomb("exponents", CHAT, _repeated(_CHAT + b'"tools":[', b"1e-400", b"]}", 1_500_000)),
    StructureBomb("numbers of 300 digits", CHAT, _repeated(_CHAT + b'"tools":[', b"9" * 300, b"]}")),
    StructureBomb("wrong lists of token ids", COMPLETIONS, _repeated(b'{"prompt":[[1],', b"[null]", b"]}", 400_000)),
    StructureBomb("backslashes", CHAT, lambda: _CHAT + b'"user":"' + b"\\" * (SIZE_BYTES & ~1) + b'"}'),
    StructureBomb("quotes", CHAT, lambda: b'"' * SIZE_BYTES),
    StructureBomb("commas", CHAT, lambda: b"," * SIZE_BYTES),
    StructureBomb("no JSON", CHAT, lambda: b"\xff" * SIZE_BYTES),
)  # fmt: skip
