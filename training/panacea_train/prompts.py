"""The prompts of an evaluation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from panacea.errors import ConfigError
from panacea.text.chat_template import ChatMessage
from panacea_train.data.json_lines import Problem, parse_object, problems_of, read_lines
from panacea_train.data.line_formats import PromptLine

EXAMPLE = '{"prompt": "How do I boil an egg?"}'


class Prompt(msgspec.Struct, frozen=True):
    """A conversation to be answered."""

    messages: tuple[ChatMessage, ...]
    fields: dict[str, Any] = {}
    """Other fields of its line in the file, such as a reference answer, for reward functions."""
    line: int | None = None
    """Its line in the file, from 1."""

    @property
    def text(self) -> str:
        """The user's last message."""
        return next(message.content for message in reversed(self.messages) if message.role == "user")

    def place(self, number: int) -> str:
        """Its name in error messages: its line if known, else its `number`."""
        return f"prompt {number}" if self.line is None else f"the prompt on line {self.line}"


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts in a file: a text on each line of a .txt, and JSON Lines under any other name.

    An object has `prompt`, the user's text or a list of messages, or `messages`; see docs/evaluation.md. Empty lines
    are skipped. Raises `ConfigError` that names the first wrong line and field, and the number of further problems.
    """
    parse = _text if path.suffix == ".txt" else _object
    found = [entry for number, line in read_lines(path) for entry in parse(number, line)]
    problems = [entry for entry in found if isinstance(entry, Problem)]
    if problems:
        more = f" (and {len(problems) - 1:,} more such problems)" if problems[1:] else ""
        raise ConfigError(f"{path}, {problems[0]}{more}")
    if not found:
        raise ConfigError(f"{path} has no prompts: write a JSON object on each line, such as {EXAMPLE}")
    return [entry for entry in found if isinstance(entry, Prompt)]


def choose_prompts(prompts: Sequence[Prompt], limit: int | None) -> list[Prompt]:
    """At most `limit` prompts, spread evenly over the list, because files are often sorted."""
    return [prompts[index] for index in evenly(len(prompts), len(prompts) if limit is None else limit)]


def with_system(prompts: Sequence[Prompt], system: str) -> list[Prompt]:
    """The prompts with a system message in front. Raises `ConfigError` for a prompt that has one already."""
    for number, prompt in enumerate(prompts, 1):
        if prompt.messages[0].role == "system":
            raise ConfigError(f"--system: {prompt.place(number)} has a system message already")
    return [Prompt((ChatMessage("system", system), *prompt.messages), prompt.fields, prompt.line) for prompt in prompts]


def _text(number: int, line: bytes) -> list[Prompt | Problem]:
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError:
        return [Problem(number, "", "is not UTF-8")]
    return [Prompt((ChatMessage("user", text),), line=number)]


def _object(number: int, line: bytes) -> list[Prompt | Problem]:
    content = parse_object(number, line)
    if isinstance(content, Problem):
        return [content]
    try:
        entry = PromptLine.model_validate(content)
        return [Prompt(tuple(entry.conversation()), dict(entry.model_extra or {}), number)]
    except ValidationError as error:
        return list(problems_of(number, error))
    except ValueError as error:
        return [Problem(number, "", str(error))]


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`: the first, the last unless `most` is 1, and others between."""
    if count <= most:
        return list(range(count))
    if most <= 1:
        return [0][:most]
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]
