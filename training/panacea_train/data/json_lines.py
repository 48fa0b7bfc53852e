"""JSON Lines: reading a file's objects, and reporting problems by line and field."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from panacea.errors import ConfigError
from panacea_train.input_file import check_regular

SHOWN_CHARACTERS = 64
"""Most characters of a field's name in a message: the name may be any text."""


@dataclass(frozen=True, order=True)
class Problem:
    """A problem in the file. `field` is "" for the line as a whole."""

    line: int
    field: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.field}: {self.message}" if self.field else f"line {self.line}: {self.message}"


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not empty, each with its number from 1. Raises `ConfigError` if the file cannot be read."""
    check_regular(path)
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None


def parse_object(number: int, line: bytes) -> dict[str, Any] | Problem:
    """The JSON object in line `number`."""
    try:
        content: Any = json.loads(line)
    except UnicodeDecodeError:
        return Problem(number, "", "is not UTF-8")
    except json.JSONDecodeError as error:
        return Problem(number, "", f"is not valid JSON: {error.msg.lower()} at column {error.colno}")
    except (RecursionError, ValueError):  # an integer of more than 4300 digits is a ValueError
        return Problem(number, "", "is JSON that cannot be read")
    return content if isinstance(content, dict) else Problem(number, "", "is not a JSON object")


def problems_of(number: int, error: ValidationError) -> list[Problem]:
    """The problems that pydantic found in the object of line `number`."""
    details = error.errors(include_input=False, include_url=False, include_context=False)
    return [Problem(number, field_path(entry["loc"]), _words(entry["msg"])) for entry in details]


def field_path(location: Sequence[int | str]) -> str:
    """The name of the field at `location` in messages."""
    return ascii(".".join(map(str, location)))[1:-1][:SHOWN_CHARACTERS]


def _words(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[0].lower() + message[1:]
