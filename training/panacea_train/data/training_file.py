"""Reading a training file, and reporting its problems by line and field."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from panacea.errors import ConfigError
from panacea.preference import NAME_PATTERN
from panacea_train.data.json_lines import Problem, field_path, parse_object, problems_of, read_lines
from panacea_train.data.line_formats import format_of
from panacea_train.data.training_records import Compared, Record, Scored, Shown, dimensions_of

MOST_DIMENSIONS = 256
"""Each dimension has a column of its own, and with more than 256 columns the kernels do not run."""
SHOWN_DIMENSIONS = 20
"""Dimensions that a message lists."""

_NO_NAME = "is not a name: use up to 64 letters, digits, '_', '.' and '-', a letter or digit first"


@dataclass(frozen=True)
class TrainingFile:
    """A file's records, each with the number of its line from 1, and the problems of the other lines."""

    path: Path
    dimensions: tuple[str, ...]
    """The requested dimensions; else all that the file names, in the order of their first appearance."""
    records: tuple[tuple[int, Record], ...]
    problems: tuple[Problem, ...]
    """In the order of the lines. A file with problems cannot be trained on."""


def read_training_file(path: Path, dimensions: Sequence[str] = ()) -> TrainingFile:
    """Reads a JSON Lines file and skips empty lines. Without `dimensions` the file's own are used.

    Raises `ConfigError` when the file cannot be read, or has no lines or too many dimensions, and for `dimensions` that
    are not names.
    """
    for name in dimensions:
        if not NAME_PATTERN.fullmatch(name):
            raise ConfigError(f"--dimension {field_path((name,))} {_NO_NAME}")
    _check_count("--dimension", dimensions)
    problems: list[Problem] = []
    numbered: list[tuple[int, Record]] = []
    for number, line in read_lines(path):
        found = _parse(number, line)
        if isinstance(found, list):
            problems += found
        else:
            numbered.append((number, found))
    if not numbered and not problems:
        raise ConfigError(f"{path} has no lines")
    named = dict.fromkeys(name for _, record in numbered for name in dimensions_of(record))
    chosen = tuple(dimensions or filter(NAME_PATTERN.fullmatch, named))
    _check_count(str(path), chosen)
    for number, record in numbered:
        problems += _disagreements(number, record, chosen)
    return TrainingFile(path, chosen, tuple(numbered), tuple(sorted(problems)))


def _check_count(where: str, dimensions: Sequence[str]) -> None:
    if len(dimensions) > MOST_DIMENSIONS:
        raise ConfigError(
            f"{where} names {len(dimensions):,} dimensions, and an adapter has at most {MOST_DIMENSIONS}: choose fewer"
        )


def _parse(number: int, line: bytes) -> Record | list[Problem]:
    content = parse_object(number, line)
    if isinstance(content, Problem):
        return [content]
    try:
        return format_of(content).model_validate(content).record()
    except ValidationError as error:
        return problems_of(number, error)
    except ValueError as error:
        return [Problem(number, "", str(error))]


def _disagreements(number: int, record: Record, dimensions: tuple[str, ...]) -> Iterator[Problem]:
    """The problems of `record` in a file with these dimensions."""
    listed = f"dimensions: {_listed(dimensions)}"
    match record:
        case Scored():
            for index, scores in enumerate(record.scores):
                yield from _unknown(number, f"answers.{index}.scores", scores, dimensions)
                for name in dimensions:
                    if name not in scores:
                        field = field_path(("answers", index, "scores", name))
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
            yield Problem(number, field_path((field, name)), _NO_NAME)
        elif name not in known:
            yield Problem(number, field_path((field, name)), f"is not among the dimensions: {_listed(known)}")


def _listed(dimensions: Sequence[str]) -> str:
    more = f" and {len(dimensions) - SHOWN_DIMENSIONS} more" if len(dimensions) > SHOWN_DIMENSIONS else ""
    return ", ".join(dimensions[:SHOWN_DIMENSIONS]) + more
