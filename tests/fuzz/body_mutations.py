"""Bodies with something wrong: those that know JSON mostly leave it valid, those that know bytes mostly do not."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

from tests.fuzz.values import NAMES, ODD, SCHEMA, SCHEMAS, VALID

_RAW = [
    *(b"\x00", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"\xef\xbb\xbf", b"\\ud800"),
    *(b"\\udc00\\ud800", b"\\u0000", b"\\x", b"\\", b'"', b"'", b"{", b"}", b"[", b"]", b",", b":", b"//", b"/**/"),
    *(b"NaN", b"-Infinity", b"1e400", b"-", b"01", b"0x1", b".5", b"+1", b"1" * 5000, b"\r\n\r\n", b"\n", b"nul"),
]


# Mutations that know JSON.


def _odd(draw: random.Random) -> Any:
    return copy.deepcopy(draw.choice(ODD))  # what is put somewhere is mutated further


_Place = tuple[Any, Any]


def _places(content: Any) -> list[_Place]:
    """Every container and key in it, the fields at the top first."""
    found: list[_Place] = []
    if isinstance(content, dict):
        found += [(content, key) for key in content]
    elif isinstance(content, list):
        found += [(content, index) for index in range(len(content))]
    for container, key in list(found):
        found += _places(container[key])
    return found


def _somewhere(draw: random.Random, content: Any) -> _Place:
    return draw.choice(_places(content))


def _delete(draw: random.Random, content: Any) -> bytes:
    container, key = _somewhere(draw, content)
    del container[key]
    return json.dumps(content).encode()


def _replace(draw: random.Random, content: Any) -> bytes:
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        container, key = _somewhere(draw, content)
        container[key] = _odd(draw)
    return json.dumps(content, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")


def _add(draw: random.Random, content: Any) -> bytes:
    containers = [content] + [container[key] for container, key in _places(content)]
    container = draw.choice([each for each in containers if isinstance(each, dict)])
    container[draw.choice(NAMES)] = _odd(draw)
    return json.dumps(content).encode()


def _rename(draw: random.Random, content: Any) -> bytes:
    container, key = draw.choice([place for place in _places(content) if isinstance(place[0], dict)])
    value = container.pop(key)
    container[draw.choice((key.upper(), key + " ", key[:-1], key + "\u0000", draw.choice(NAMES)))] = value
    return json.dumps(content).encode()


def _swap(draw: random.Random, content: Any) -> bytes:
    (one, first), (other, second) = _somewhere(draw, content), _somewhere(draw, content)
    one[first], other[second] = copy.deepcopy((other[second], one[first]))
    return json.dumps(content).encode()


def _nest(draw: random.Random, content: Any) -> bytes:
    container, key = _somewhere(draw, content)
    value = container[key]
    for _ in range(draw.choice((1, 5, 50, 150))):
        value = [value] if draw.random() < 0.5 else {"a": value}
    container[key] = value
    return json.dumps(content).encode()


def _repeat(draw: random.Random, content: Any) -> bytes:
    container, key = _somewhere(draw, content)
    value = container[key]
    times = draw.choice((2, 20, 300))
    if isinstance(value, str | list):
        container[key] = value * times
    else:
        container[key] = [value] * times
    return json.dumps(content).encode()


def _duplicate(draw: random.Random, content: Any) -> bytes:
    container, key = draw.choice([place for place in _places(content) if isinstance(place[0], dict)])
    marker = "a name that is nowhere else"
    container[marker] = container[key] if draw.random() < 0.5 else _odd(draw)
    return json.dumps(content).replace(json.dumps(marker), json.dumps(key)).encode()


def _schema(draw: random.Random, content: Any) -> bytes:
    """A JSON schema for the answer, with strange parts."""
    schema = json.loads(json.dumps(SCHEMA)) if draw.random() < 0.7 else {}
    for _ in range(draw.choice((1, 1, 2))):
        strange = copy.deepcopy(draw.choice(SCHEMAS))
        if not isinstance(strange, dict) or (schema and draw.random() < 0.6):
            container, key = _somewhere(draw, schema) if schema else ({}, "type")
            container[key] = strange
        else:
            schema |= strange
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    return json.dumps(content | {"response_format": wanted}).encode()


def _literal(draw: random.Random, content: Any) -> bytes:
    """Values that json.dumps would not write."""
    container, key = _somewhere(draw, content)
    marker = "a value that is nowhere else"
    container[key] = marker
    values = [
        "1e400",
        "-1e400",
        "NaN",
        "Infinity",
        "-0",
        "1E5",
        "1.0",
        "1e-400",
        '"\\ud800"',
        '"\\udfff\\ud800"',
        "1" * 400,
    ]
    values += ['"\\u0000"', '"\\/"', "9" * 5000, "0." + "1" * 3000, " 3 ", "[" * 200 + "]" * 200, "[" * 90_000]
    return json.dumps(content).replace(json.dumps(marker), draw.choice(values)).encode()


def _reformat(draw: random.Random, content: Any) -> bytes:
    """Another way to write the same: it has to be answered like the valid one."""
    return json.dumps(content, indent=draw.choice((0, 1, 40)), sort_keys=draw.random() < 0.5).encode()


JSON_MUTATIONS: dict[str, Callable[[random.Random, Any], bytes]] = {
    "delete": _delete,
    "replace": _replace,
    "replace more": _replace,
    "add": _add,
    "rename": _rename,
    "swap": _swap,
    "nest": _nest,
    "repeat": _repeat,
    "duplicate": _duplicate,
    "schema": _schema,
    "literal": _literal,
    "reformat": _reformat,
}


# Mutations that know bytes.


def _flip(draw: random.Random, body: bytes) -> bytes:
    changed = bytearray(body)
    for _ in range(draw.choice((1, 1, 2, 8, 40))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _insert(draw: random.Random, body: bytes) -> bytes:
    for _ in range(draw.choice((1, 1, 3))):
        place = draw.randrange(len(body) + 1)
        body = body[:place] + draw.choice(_RAW) + body[place:]
    return body


def _cut(draw: random.Random, body: bytes) -> bytes:
    begin, end = sorted(draw.randrange(len(body) + 1) for _ in range(2))
    return body[:begin] + body[end:]


def _truncate(draw: random.Random, body: bytes) -> bytes:
    return body[: draw.randrange(len(body))]


def _splice(draw: random.Random, body: bytes) -> bytes:
    other = json.dumps(draw.choice(VALID)[1]).encode()
    return body[: draw.randrange(len(body))] + other[draw.randrange(len(other)) :]


def _noise(draw: random.Random, body: bytes) -> bytes:
    return draw.randbytes(draw.choice((1, 10, len(body), 10_000)))


def _digits(draw: random.Random, body: bytes) -> bytes:
    """Other digits where there are digits: it stays JSON more often than not."""
    return bytes(
        draw.choice(b"0123456789.-eE") if byte in b"0123456789" and draw.random() < 0.5 else byte for byte in body
    )


def _encode(draw: random.Random, body: bytes) -> bytes:
    return body.decode().encode(draw.choice(("utf-16", "utf-32", "utf-16-le", "utf-8-sig", "utf-7", "cp037")))


def _deep(draw: random.Random, body: bytes) -> bytes:
    opening = draw.choice((b"[", b'{"a":', b'{"messages":[', b'{"preference":['))
    return opening * draw.choice((50, 300, 5000, 100_000)) + body


def _around(draw: random.Random, body: bytes) -> bytes:
    return draw.choice(
        (b" " * 100_000 + body, body + b" " * 100_000, body + body, b"\xef\xbb\xbf" + body, body + b"\x00")
    )


BYTE_MUTATIONS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "flip": _flip,
    "insert": _insert,
    "cut": _cut,
    "truncate": _truncate,
    "splice": _splice,
    "noise": _noise,
    "digits": _digits,
    "encode": _encode,
    "deep": _deep,
    "around": _around,
}
