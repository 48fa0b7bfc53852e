"""How bad bodies are written: each with the `param` that its error must have."""

import json
from collections.abc import Iterable, Sequence

from tests.api.chatting import CHAT, body

SECRET = "SECRET-VALUE"
"""Stands in bad bodies where a value stands; no error may repeat it."""

DIMENSIONS = "dimensions: helpful, harmless, concise"

Case = tuple[bytes, str | None]
"""A body and the `param` of its error."""

Cases = Sequence[Case]


def with_field(name: str, value: str, path: str = CHAT) -> bytes:
    """A good body but for this field, whose value is written as it is."""
    rest = json.dumps({key: item for key, item in body(path).items() if key != name})
    return f"{{{json.dumps(name)}: {value}, {rest[1:]}".encode()


def fields(values: dict[str, Iterable[str]], path: str = CHAT) -> Cases:
    return [(with_field(name, value, path), name) for name, given in values.items() for value in given]


def preferences(*values: str) -> Cases:
    return [(with_field("preference", value), "preference") for value in values]


def message(text: str, param: str) -> Case:
    return with_field("messages", f"[{text}]"), param


STRING, OBJECT, LIST = f'"{SECRET}"', f'{{"a": "{SECRET}"}}', f'["{SECRET}"]'
