"""A model's chat template, rendered in jinja's sandbox as transformers does it."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from panacea.errors import CheckpointError, RequestError

logger = logging.getLogger(__name__)

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class ChatMessage:
    """One turn of a conversation."""

    role: Role
    content: str


class ChatTemplate:
    """Turns messages into the text that a model was trained on.

    Raises `CheckpointError` when built from a template that does not compile.
    """

    def __init__(self, source: str, variables: Mapping[str, str]) -> None:
        self.source = source
        self._variables = dict(variables)
        try:
            self._template = _environment().from_string(source, globals=_FUNCTIONS)
        except TemplateError as error:
            raise CheckpointError(f"the chat template does not compile: {error}") from error

    def render(self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool = True) -> str:
        """The conversation's text, up to where the assistant's next answer begins if `add_generation_prompt`.

        Raises `RequestError` (param "messages") if the template refuses the messages or fails on them.
        """
        try:
            return self._template.render(
                messages=[{"role": message.role, "content": message.content} for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._variables,
            )
        # A template is a program that came with the model: it may fail in any way on messages it did not expect.
        except Exception as error:
            logger.info("the chat template refused a conversation: %s", type(error).__name__)
            raise RequestError(f"messages: {self._reason(error)}", "messages") from error

    def _reason(self, error: Exception) -> str:
        # Only words that stand in the template itself are shown: others could carry a message's content.
        said = str(error)
        if isinstance(error, TemplateError) and said and said in self.source:
            return said
        return "the model's chat template does not accept this conversation"


def read_chat_template(folder: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    """The source of a model folder's chat template; None if it has none (base models)."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    entry = tokenizer_config.get("chat_template")
    if isinstance(entry, list):
        named = {item["name"]: item["template"] for item in entry if isinstance(item, dict)}
        entry = named.get("default")
    return entry if isinstance(entry, str) else None


class _Generation(Extension):
    """`{% generation %}` marks what an assistant said, for training; a prompt just contains it."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own declaration

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    return environment


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja's own filter escapes HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)


_FUNCTIONS: dict[str, Any] = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
