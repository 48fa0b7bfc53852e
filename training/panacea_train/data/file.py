"""Reading a training file, and saying what is wrong with it by line and field."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from panacea.errors import ConfigError
from panacea.preference import NAME_PATTERN
from panacea_train.data.lines import format_of
from panacea_train.data.records import Compared, Record, Scored, Shown, dimensions_of

SHOWN_CHARACTERS = 64
"""Of a field's name, which may be anything."""


@dataclass(frozen=True, order=True)
class Problem:
    """Something that has to be put right in the file. `field` is "" for the line as a whole."""

    line: int
    field: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.field}: {self.message}" if self.field else f"line {self.line}: {self.message}"


@dataclass(frozen=True)
class TrainingFile:
    """A file's records, each with the number of its line (from 1), and all that is wrong with the others."""

    path: Path
    dimensions: tuple[str, ...]
    """As asked for; else all that the file names, in the order of their first appearance."""
    records: tuple[tuple[int, Record], ...]
    problems: tuple[Problem, ...]
    """In the order of the lines. A file with any is not for training."""


def read_training_file(path: Path, dimensions: Sequence[str] = ()) -> TrainingFile:
    """Reads a JSON Lines file; empty lines do not count. Without `dimensions` the file's own are taken.

    Raises `ConfigError` when the file cannot be read or has no lines.
    """
    problems: list[Problem] = []
    numbered: list[tuple[int, Record]] = []
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                found = _parse(number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
                if isinstance(found, list):
                    problems += found
                else:
                    numbered.append((number, found))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    if not numbered and not problems:
        raise ConfigError(f"{path} has no lines")
    named = dict.fromkeys(name for _, record in numbered for name in dimensions_of(record))
    chosen = tuple(dimensions or filter(NAME_PATTERN.fullmatch, named))
    for number, record in numbered:
        problems += _disagreements(number, record, chosen)
    return TrainingFile(path, chosen, tuple(numbered), tuple(sorted(problems)))


def _parse(number: int, line: bytes) -> Record | list[Problem]:
    try:
        content: Any = json.loads(line)
    except UnicodeDecodeError:
        return [Problem(number, "", "is not UTF-8")]
    except json.JSONDecodeError as error:
        return [Problem(number, "", f"is no JSON: {error.msg.lower()} at column {error.colno}")]
    except (RecursionError, ValueError):  # an integer of more than 4300 digits is a ValueError
        return [Problem(number, "", "is no JSON that can be read")]
    if not isinstance(content, dict):
        return [Problem(number, "", "is no JSON object")]
    try:
        return format_of(content).model_validate(content).record()
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False, include_context=False)
        return [Problem(number, _path(entry["loc"]), _words(entry["msg"])) for entry in details]
    except ValueError as error:
        return [Problem(number, "", str(error))]


def _path(location: Sequence[int | str]) -> str:
    return ascii(".".join(map(str, location)))[1:-1][:SHOWN_CHARACTERS]


def _words(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _disagreements(number: int, record: Record, dimensions: tuple[str, ...]) -> Iterator[Problem]:
    """What is wrong with `record` in a file of these dimensions."""
    listed = f"dimensions: {', '.join(dimensions)}"
    match record:
        case Scored():
            for index, scores in enumerate(record.scores):
                yield from _unknown(number, f"answers.{index}.scores", scores, dimensions)
                for name in dimensions:
                    if name not in scores:
                        field = _path(("answers", index, "scores", name))
                        yield Problem(number, field, f"is missing: every answer needs a score on each ({listed})")
        case Compared():
            yield from _unknown(number, "better", record.better, dimensions)
        case Shown():
            weights = record.preference
            yield from _unknown(number, "preference", weights or (), dimensions)
            if weights is not None and not any(weights.values()):
                yield Problem(number, "preference", "has no weight above 0")


def _unknown(number: int, field: str, names: Iterable[str], known: tuple[str, ...]) -> Iterator[Problem]:
    for name in names:
        if not NAME_PATTERN.fullmatch(name):
            words = "is no name: up to 64 letters, digits, '_', '.' and '-', a letter or digit first"
            yield Problem(number, _path((field, name)), words)
        elif name not in known:
            yield Problem(number, _path((field, name)), f"is not among the dimensions: {', '.join(known)}")
